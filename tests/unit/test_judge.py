"""Figures of scores against gold answers: the best of n, pairs in order, ties; and what is refused."""

import copy
import itertools
import re
from collections import Counter

import pytest
from report_run import group

from evaluation.judging import Judge
from serl.records import Completion, Pair, Problem
from serl.rewards.kinds import Earnings
from serl.rewards.spec import ModelReward
from serl.stages.answering import Asking, judge
from serl.stages.judge.figures import best_of, of_group, of_pair
from tests.conftest import SMALL, run_config

RIGHT, SCORES = [True, False, True, False, False, True], [0.1, 0.9, 0.5, 0.5, -2.0, 0.5]


@pytest.mark.parametrize("n", range(1, 7))
def test_best_of_n_is_the_mean_over_all_draws_of_n(n):
    """Counted out: of every subset the best, of equal ones each with the same chance."""
    total = cases = 0
    for chosen in itertools.combinations(range(6), n):
        top = max(SCORES[i] for i in chosen)
        tied = [RIGHT[i] for i in chosen if SCORES[i] == top]
        total, cases = total + sum(tied) / len(tied), cases + 1
    assert best_of(n, RIGHT, SCORES) == pytest.approx(total / cases)


def test_without_ties_best_of_n_is_exact():
    scores = [0.1, 0.9, 0.5, 0.4, -2.0, 0.6]
    for n in range(1, 7):
        draws = [max(c, key=lambda i: scores[i]) for c in itertools.combinations(range(6), n)]
        assert best_of(n, RIGHT, scores) == pytest.approx(sum(RIGHT[i] for i in draws) / len(draws))


def test_a_questions_pairs_weigh_one_together_and_equal_scores_half():
    found = of_group(group("q", [0, 1, 0, 1]), [True, False, None, None], [0.5, 0.5, 0.1, 0.9])
    assert found["told_apart"] == 1 and found["pairs_right"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found["random_right"] == 0.25 and found["best_right"] == 0.0 and found["some_right"] == 1
    assert of_group(group("q", [0, 0]), [True, True], [0.0, 1.0])["told_apart"] == 0


@pytest.mark.parametrize(("right", "gold"), [(True, (1, 1.0)), (False, (1, 0.0)), (None, (0, 0))])
def test_a_pair_is_measured_by_who_made_it_and_by_the_gold_answer(right, gold):
    pair = Pair(id="p", question="q", prompt_ids=(), completions=(), says="vote", right=right)
    found = of_pair(pair, (2.0, 1.0))
    assert (found["pairs"], found["agreed"]) == (1, 1.0)
    assert (found["gold_pairs"], found["gold_pairs_right"]) == gold


def test_counts_of_questions_add_up():
    total = Counter()
    for scores in ([0.0, 1.0], [1.0, 0.0]):
        total.update(of_group(group("q", [0, 1]), [True, False], scores))
    assert (total["questions"], total["best_right"], total["best_of_2"], total["pairs_right"]) == (2, 1, 1, 1)


# ---------------------------------------------------------------------------------------- configuration
def phases(stages, **sections) -> dict:
    tree = copy.deepcopy(SMALL)
    respond = tree["respond"] | {"problems": {"source": tree["seeds"], "per_round": 8}}
    pairs = {"kind": "select", "choose": {"kind": "cross"}}
    teach = {"kind": "train", "role": "reward", "objective": {"kind": "bradley_terry"}, "optimizer": {"lr": 1e-4}}
    both = {"respond": respond, "pairs": pairs, "teach": teach, "judge": {"shards": 2}} | sections
    gone = ("rounds", "stages", "propose", "curate", "respond", "train")
    tree = {k: v for k, v in tree.items() if k not in gone}
    return tree | {"seeds": None, "phases": {"learn": {"stages": stages} | {s: both[s] for s in stages}}}


def test_a_judge_reads_groups_and_the_model_of_its_role():
    config = run_config(phases(["respond", "pairs", "teach", "judge"]))
    judge = config.stage(1, "judge")
    assert [s.name for s in judge.kind.reads(judge, config)] == ["respond", "teach"]
    assert (judge.num_shards, judge.kind.held(judge.section, config).tensor_parallel) == (2, 1)


def test_a_named_stage_of_an_earlier_round_is_judged_again():
    tree = phases(["respond", "pairs", "teach"])
    again = {"rounds": 2, "stages": ["judge"], "judge": {"shards": 1, "data": "respond"}}
    tree["phases"]["again"] = again
    config = run_config(tree)
    judge = config.stage(3, "judge")
    assert [(s.name, s.round) for s in judge.kind.reads(judge, config)] == [("respond", 1), ("teach", 1)]
    again["judge"]["data"] = "pairs"
    config = run_config(tree)
    assert judge.kind.data(config.stage(3, "judge"), config).gives == "pairs"


def test_process_rewards_are_read_of_a_model_that_speaks_against_another():
    implied = {"kind": "train", "role": "verifier", "data": "respond", "optimizer": {"lr": 1e-4}}
    implied |= {"objective": {"kind": "implicit_reward"}}
    judge = {"shards": 1, "role": "verifier", "reads": {"kind": "implicit", "reference": "policy"}}
    tree = phases(["respond", "implied", "judge"], implied=implied, judge=judge)
    config = run_config(tree)
    training, stage = config.stage(1, "implied"), config.stage(1, "judge")
    assert [s.name for s in training.kind.reads(training, config)] == ["respond"]
    assert [s.name for s in stage.kind.reads(stage, config)] == ["respond", "implied"], "nobody trained the policy"
    assert stage.kind.uses(stage.section) == ("verifier", "policy")
    run_config(phases(["respond", "judge"], judge={"shards": 1, "role": "policy", "reads": {"kind": "implicit"}}))
    implied["rollout"] = {"prompts": 2, "samples": 4, "sampling": {"temperature": 1.0, "max_tokens": 32}}
    with pytest.raises(ValueError, match="rollout: implicit_reward learns from groups .* samples nothing"):
        run_config(phases(["respond", "implied", "judge"], implied=implied, judge=judge))


def test_a_training_may_be_rewarded_by_a_model_and_waits_for_it():
    tree = phases(["respond", "pairs", "teach"])
    how = {
        "prompts": 2, "samples": 4, "sampling": {"temperature": 1.0, "max_tokens": 32}, "reward": {"kind": "model"},
        "problems": {"source": {"kind": "jsonl", "path": "x.jsonl"}, "per_round": 4},
    }  # fmt: skip
    learn = {"objective": {"kind": "reinforce_pp"}, "optimizer": {"lr": 1e-4}, "rollout": how, "agreement": [0, 1]}
    tree["phases"]["last"] = {"stages": ["train"], "train": learn}
    config = run_config(tree)
    train = config.stage(2, "train")
    assert train.kind.uses(train.section) == ("reward",)
    assert [(s.name, s.round) for s in train.kind.reads(train, config)] == [("teach", 1)]
    del tree["phases"]["learn"]
    with pytest.raises(ValueError, match="role reward: no stage before it trains that role"):
        run_config(tree)


def test_a_stage_that_samples_holds_no_reward_model():
    tree = phases(["respond"])
    tree["phases"]["learn"]["respond"]["reward"] = {"kind": "model"}
    with pytest.raises(ValueError, match="holds no other model; have a judge score its answers"):
        run_config(tree)


@pytest.mark.parametrize(
    ("stages", "judge", "message"),
    [
        (["respond", "judge"], {"shards": 1}, "judge.role reward: no stage before it trains that role; roles so far: policy"),
        (["respond", "judge"], {"shards": 1, "role": "policy"}, "the policy has no head of one number a text"),
        (["judge"], {"shards": 1}, "no stage of the round before it gives groups or pairs"),
        (["respond", "judge"], {"shards": 1, "data": "them"}, "data them: no stage of that name before it gives groups"),
    ],
)
def test_what_cannot_judge_is_refused(stages, judge, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run_config(phases(stages, judge=judge))


def test_a_reward_model_reads_whole_texts_and_pays_by_its_scores(small_tree):
    config, seen = run_config(small_tree), []

    def ask_model(texts):
        seen.extend(texts)
        return [1.0, 0.0, 5.0]

    def said(text, *ids):
        return Completion(token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason="stop")

    answered = [
        ("train", Problem(id="a", question="1 + 1?"), [1, 2], (said("\\boxed{2}", 7), said("\\boxed{3}", 8, 9))),
        ("train", Problem(id="b", question="2 + 2?"), [3], (said("\\boxed{4}", 7),)),
    ]
    with Judge(config.answers) as reader, Earnings(ModelReward(role="taste")) as earnings:
        asking = Asking(
            seed=0, round=1, stage="train", prompts=config.prompts, sampling=None, samples=2, earnings=earnings,
            scorers={"taste": ask_model},
        )  # fmt: skip
        first, second = judge(answered, reader, asking)
    assert seen == [[1, 2, 7], [1, 2, 8, 9], [3, 7]]
    assert first.rewards == pytest.approx((0.7310586, 0.2689414)) and second.rewards == (0.5,)
