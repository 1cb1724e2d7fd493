"""What answers earn."""

import math
import random
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serl.config.files import ConfigError
from serl.config.read import load_run
from serl.config.rewards import ClassShare, Scrl
from serl.randomness import rng_of, seed_of
from serl.rewards.agreement import class_shares, scrl_rewards
from serl.rewards.kinds import Case, Earnings
from serl.rewards.outside import Outside, RewardFailed
from serl.rewards.preferred import model_rewards
from serl.rewards.spec import (
    Majority,
    ModelReward,
    PythonReward,
    RandomReward,
    SumReward,
    TokenF1,
    Verified,
    Weighted,
    judges,
    voted,
)
from tests.conftest import phased


def rewards(reward, **case):
    with Earnings(reward) as earnings:
        return earnings(Case(**case))


LABELS = st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=16)


@given(LABELS, st.none() | st.integers(0, 3))
def test_the_majority_reward_is_one_for_the_winners_class_and_never_for_no_answer(labels, winner):
    earned = rewards(
        Majority(), labels=labels, winner=winner, correct=[True] * len(labels), rng=random.Random(0)
    )
    assert earned == tuple(1.0 if winner is not None and label == winner else 0.0 for label in labels)


def test_the_verified_reward_is_for_what_is_known_to_be_right():
    assert rewards(
        Verified(), labels=[0, 0, None, 1], winner=0, correct=[True, False, None, True], rng=random.Random(0)
    ) == (1.0, 0.0, 0.0, 1.0)


def test_the_token_f1_reward_is_of_the_best_gold_and_nothing_without_one():
    case = {"labels": [0, 1, None], "winner": 0, "correct": [None] * 3, "rng": random.Random(0)}
    said = ["the red house", "Rome", None]
    assert rewards(TokenF1(), **case, answers=said, gold="Red house\nHouse, red brick") == (1.0, 0.0, 0.0)
    assert rewards(TokenF1(), **case, answers=said, gold="house") == (pytest.approx(2 / 3), 0.0, 0.0)
    assert rewards(TokenF1(), **case, answers=said) == (0.0, 0.0, 0.0)


def test_the_random_reward_is_a_fair_coin_that_its_seed_decides():
    one, two = (
        rewards(RandomReward(), labels=[0] * 4000, winner=0, correct=[None] * 4000, rng=rng_of(1, "reward"))
        for _ in "ab"
    )
    assert one == two
    assert set(one) == {0.0, 1.0}
    assert abs(sum(one) / 4000 - 0.5) < 0.05


def test_seeds_depend_on_every_part_and_on_where_the_parts_end():
    seeds = [seed_of(1, 2, "a"), seed_of(12, "a"), seed_of(1, "2a"), seed_of(1, 2, "b"), seed_of(2, 1, "a")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert seed_of(0, 1, "respond", "r001-000000") == seed_of(0, 1, "respond", "r001-000000")


# ------------------------------------------------------------------------------------------------ users' functions
FUNCTIONS = '''
import os, time

def length(question, answers, texts, gold):
    return [len(text) for text in texts]

def by_gold(question, answers, texts, gold):
    return [float(a == gold) for a in answers]

def raises(question, answers, texts, gold):
    raise KeyError("no such thing")

def hangs(question, answers, texts, gold):
    time.sleep(60)

def leaves(question, answers, texts, gold):
    os._exit(3)

def wrong(question, answers, texts, gold):
    return [1.0]

def infinite(question, answers, texts, gold):
    return [float("nan")] * len(answers)

def text(question, answers, texts, gold):
    return "much"
'''
CASE = {
    "labels": [0, 1], "winner": 0, "correct": [True, False], "rng": random.Random(0), "question": "1 + 1?",
    "answers": ["2", "3"], "texts": ["It is 2", "3"], "gold": "2",
}  # fmt: skip


def user(name: str, **more) -> PythonReward:
    return PythonReward(path=f"mine.py:{name}", text=FUNCTIONS, **more)


def test_a_users_function_says_what_answers_earn():
    assert rewards(user("length"), **CASE) == (7.0, 1.0)
    assert rewards(user("by_gold"), **CASE) == (1.0, 0.0)


def test_a_sum_weighs_its_parts():
    parts = (Weighted(weight=2.0, reward=Majority()), Weighted(weight=0.1, reward=user("length")))
    assert rewards(SumReward(of=parts), **CASE) == (2.0 + 0.1 * 7, 0.1)
    assert not voted(SumReward(of=parts)) and voted(Majority())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "it raised KeyError: 'no such thing'"),
        ("hangs", "it gave no answer within its limit_s of 0.5 s"),
        ("leaves", "it ended its process"),
        ("wrong", r"it returned \[1.0\], not a list of 2 finite numbers"),
        ("infinite", r"it returned \[nan, nan\], not a list"),
        ("text", "it returned 'much', not a list"),
    ],
)
def test_a_function_that_does_not_serve_is_named_with_its_question(name, message):
    begun = time.monotonic()
    with pytest.raises(RewardFailed, match=rf"mine\.py:{name}: {message}.*1 \+ 1\?"):
        rewards(user(name, limit_s=0.5), **CASE)
    assert time.monotonic() - begun < 20.0


def test_a_function_that_is_not_there_is_refused_before_anything_runs():
    with pytest.raises(RewardFailed, match="cannot be loaded: AttributeError"):
        Outside(user("missing")).check()
    with pytest.raises(RewardFailed, match="cannot be loaded: ModuleNotFoundError"):
        Outside(PythonReward(path="no.such.module:f")).check()


def test_a_file_beside_the_run_file_is_part_of_the_run(tmp_path, small_tree):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    small_tree["respond"]["reward"] = {"kind": "python", "path": "mine.py:length"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(phased(small_tree), sort_keys=False))
    before = load_run(tmp_path / "run.yaml")
    assert before.stage(1, "respond").section.reward.text == FUNCTIONS
    (tmp_path / "mine.py").write_text(FUNCTIONS.replace("len(text)", "-len(text)"))
    assert load_run(tmp_path / "run.yaml").digest() != before.digest()
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ConfigError, match=r"mine\.py: cannot be read.*put the file beside the run file"):
        load_run(tmp_path / "run.yaml")


# ---------------------------------------------------------------------------------------- reward models
SCORES = (2.0, -1.0, 0.5, 0.5)


def test_a_models_reward_is_how_probably_an_answer_is_better_than_another():
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = [
        sum(sigmoid(a - b) for j, b in enumerate(SCORES) if j != i) / 3 for i, a in enumerate(SCORES)
    ]
    assert model_rewards(ModelReward(), SCORES) == pytest.approx(expected)
    assert sum(expected) == pytest.approx(2.0), "of two answers one is better"
    moved = [s + 40.0 for s in SCORES]
    assert model_rewards(ModelReward(), moved) == pytest.approx(expected), "an offset says nothing"


def test_an_answers_own_probability_is_the_published_reward_and_never_overflows():
    assert model_rewards(ModelReward(of="answer"), (0.0, 1000.0, -1000.0)) == (0.5, 1.0, 0.0)
    assert model_rewards(ModelReward(), (7.0,)) == (0.5,)


def test_a_sum_may_have_a_models_word_in_it_and_names_its_roles():
    taste = Weighted(weight=0.5, reward=ModelReward(role="taste"))
    reward = SumReward(of=(taste, Weighted(reward=Majority())))
    case = Case(labels=[0, 0, 1, None], winner=0, correct=[None] * 4, rng=random.Random(0), scores={"taste": SCORES})
    with Earnings(reward) as earned:
        found = earned(case)
    own = model_rewards(ModelReward(), SCORES)
    assert found == pytest.approx([0.5 * x + y for x, y in zip(own, (1, 1, 0, 0))])
    assert judges(reward) == ("taste",) and not voted(reward)


# ------------------------------------------------------------------------------------------------ without labels
def test_rewards_of_agreement_are_paid_for_the_classes_of_a_case():
    labels, surprise = [0] * 5 + [1, None, 2], [0.1, 0.2, 0.1, 0.3, 0.2, 1.0, 0.4, 0.0]
    case = {"labels": labels, "winner": 0, "correct": [None] * 8, "rng": random.Random(0)}
    assert rewards(ClassShare(), **case) == class_shares(labels)
    settings = Scrl(entropy=0.2)
    assert rewards(settings, surprise=surprise, **case) == scrl_rewards(settings, labels, surprise)
