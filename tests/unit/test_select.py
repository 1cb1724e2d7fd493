"""What is chosen from a group: pairs by who is better, right answers up to a cap; and what a user has to mend."""

import copy
import dataclasses
import math
import random
import re

import pytest
from report_run import group

from serl.records import Completion, Pair, pairs_from_parquet, pairs_to_parquet
from serl.stages.select.choose import chosen
from serl.stages.select.gate import gated
from serl.stages.select.spec import Cross, Extremes, Gate, Right
from serl.stages.show import show_of
from tests.conftest import SMALL, run_config


def of(labels, texts=None):
    found = group("q", labels)
    texts = texts or [f"answer {i}" for i in range(len(labels))]
    several = tuple(
        Completion(token_ids=(i + 5, 2), logprobs=(0.0, 0.0), text=t, finish_reason="stop")
        for i, t in enumerate(texts)
    )
    return dataclasses.replace(found, completions=several)


def choose(group, worth, choice, correct=None, seed=0):
    return chosen(group, worth, correct or [None] * len(worth), choice, "me", random.Random(seed))


def sides(found):
    return [tuple(int(x) for x in p.id.split("-")[1:]) for p in found]


def test_cross_pairs_are_all_that_differ_in_worth_and_no_others():
    found, lost = choose(of([0, 0, 1, 1]), [1.0, 0.0, None, 1.0], Cross(most=99))
    assert sides(found) == [(0, 1), (3, 1)] and not +lost
    assert found[0].completions == (of([0, 0, 1, 1]).completions[0], of([0, 0, 1, 1]).completions[1])
    assert found[0].says == "me" and (found[0].label, found[0].margin) == (1.0, 0.0)


def test_a_cap_draws_pairs_by_the_seed_alone():
    worth = [float(i) for i in range(8)]
    several = [sides(choose(of([0] * 8), worth, Cross(most=3), seed=s)[0]) for s in (1, 1, 2)]
    assert several[0] == several[1] != several[2] and len(several[0]) == 3
    assert choose(of([0] * 8), worth, Cross(most=3))[1]["surplus"] == 28 - 3
    assert all(worth[i] > worth[j] for s in several for i, j in s)


def test_extremes_are_the_first_best_and_the_first_worst():
    assert sides(choose(of([0] * 5), [0.2, 0.9, -1.0, 0.9, -1.0], Extremes())[0]) == [(1, 2)]
    assert choose(of([0] * 3), [0.5, 0.5, 0.5], Extremes())[0] == [], "nobody is better"
    assert choose(of([0] * 2), [None, None], Extremes())[0] == []


def test_a_pair_of_equal_answers_or_with_an_empty_side_is_no_pair():
    same = of([0, 0, 1])
    same = type(same)(**{f: getattr(same, f) for f in same.__slots__} | {"completions": (same.completions[0],) * 2 + same.completions[2:]})
    found, lost = choose(same, [1.0, 0.0, 0.0], Cross())
    assert sides(found) == [(0, 2)] and lost["equal"] == 1
    found, lost = choose(of([0, 1, 1], ["yes", " \n", "no"]), [1.0, 0.0, 0.0], Cross())
    assert sides(found) == [(0, 2)] and lost["empty"] == 1


def test_right_answers_keep_their_own_columns_up_to_the_cap():
    found, lost = choose(of([0, 1, 0, 0]), [1.0, 0.0, 1.0, 1.0], Right(most=2))
    (kept,) = found
    assert len(kept.completions) == len(kept.rewards) == len(kept.labels) == len(kept.answers) == 2
    assert set(kept.labels) == {0} and lost == {"wrong": 1, "surplus": 1}
    assert choose(of([0, 1]), [0.0, 0.0], Right())[0] == []


@pytest.mark.parametrize(("correct", "right"), [([1.0, 0.0], True), ([0.0, 1.0], False), ([1.0, 1.0], None), ([None, 0.0], None)])
def test_a_pair_says_whether_the_gold_answer_agrees(correct, right):
    (pair,), _ = choose(of([0, 1]), [0.7, 0.1], Extremes(), correct=correct)
    assert pair.right is right
    assert pairs_from_parquet(pairs_to_parquet([pair])) == [pair]


# ---------------------------------------------------------------------------------------- configuration
PAIRS = {"kind": "select", "choose": {"kind": "cross"}}
REWARD = {"kind": "train", "role": "reward", "objective": {"kind": "bradley_terry"}, "optimizer": {"lr": 1e-4}}


def phases(*stages, **sections) -> dict:
    tree = copy.deepcopy(SMALL)
    respond = tree["respond"] | {"problems": {"source": tree["seeds"], "per_round": 8}}
    phase = {"stages": ["respond", *stages], "respond": respond, **sections}
    tree = {k: v for k, v in tree.items() if k not in ("rounds", "stages", "propose", "curate", "respond", "train")}
    return tree | {"seeds": None, "phases": {"learn": phase}}


def test_a_reward_model_is_trained_on_what_was_chosen():
    config = run_config(phases("pairs", "teach", pairs=PAIRS, teach=REWARD))
    pairs, teach = config.stage(1, "pairs"), config.stage(1, "teach")
    assert pairs.gives == "pairs" and teach.role == "reward"
    assert teach.kind.reads(teach, config) == (pairs,)
    assert config.judged(1) is None, "no policy learns from groups"


def test_right_answers_are_no_pairs():
    right = {"kind": "select", "choose": {"kind": "right"}}
    imitate = {"kind": "train", "objective": {"kind": "imitation"}, "optimizer": {"lr": 1e-4}}
    config = run_config(phases("right", "learn", right=right, learn=imitate))
    assert config.stage(1, "right").gives == "answers"


def with_(section: dict, **changes) -> dict:
    return section | changes


@pytest.mark.parametrize(
    ("stages", "sections", "message"),
    [
        (["teach"], {"teach": REWARD}, "no stage before it in the round writes pairs; list one that does, like select"),
        (["pairs", "teach"], {"pairs": PAIRS, "teach": with_(REWARD, role="policy")}, "cannot answer; give it a role of its own"),
        (["pairs", "teach"], {"pairs": PAIRS, "teach": with_(REWARD, batch_samples=5)}, "batch_samples 5: a pair is two answers"),
        (["pairs", "teach"], {"pairs": PAIRS, "teach": with_(REWARD, loss_mean="token")}, "loss_mean token: bradley_terry weighs by sequence"),
        (["pairs", "teach"], {"pairs": PAIRS, "teach": with_(REWARD, data="paris")}, "data paris: no stage of that name"),
        (
            ["pairs", "teach", "speak"],
            {"pairs": PAIRS, "teach": REWARD, "speak": with_(REWARD, role="policy", init="reward", objective={"kind": "dpo"})},
            "init reward: teach gives the role reward a head of one number a text, which dpo cannot go on with",
        ),
        (["pairs"], {"pairs": with_(PAIRS, choose={"kind": "extremes"})}, "no stage before it in the round gives scores; list one, like judge"),
        (["pairs"], {"pairs": with_(PAIRS, data="nobody")}, "data nobody: no stage of that name before it gives groups"),
        (["pairs"], {"pairs": with_(PAIRS, questions=[0.2, 0.2])}, "no question lies between"),
    ],
)
def test_what_does_not_fit_together_is_said_with_its_key(stages, sections, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run_config(phases(*stages, **sections))


# ---------------------------------------------------------------------------------------- SER's gate
def pool(*right) -> list[Pair]:
    (pair,), _ = choose(of([0, 1]), [1.0, 0.0], Cross())
    return [dataclasses.replace(pair, id=f"p{i}", right=r) for i, r in enumerate(right)]


def take(scores, gate, right=None, seed=0):
    pairs = pool(*(right or [None] * len(scores)))
    return gated(pairs, scores, gate, "reward", random.Random(seed))


def logit(p):
    return math.log(p / (1 - p))


# of a pair of answers, p and q: whether the published rules take it as told apart, and as ranked
TABLE = [
    ((0.56, 0.44), True, False),
    ((0.44, 0.56), True, False),
    ((0.54, 0.44), False, False),
    ((0.56, 0.46), False, False),
    ((0.90, 0.56), False, True),
    ((0.10, 0.44), False, True),
    ((0.90, 0.10), True, True),
    ((0.50, 0.50), False, False),
    ((0.80, 0.46), False, True),
]


@pytest.mark.parametrize(("p", "apart", "ranked"), TABLE)
def test_the_published_rules_as_a_truth_table(p, apart, ranked):
    scores = [tuple(map(logit, p))]
    gate = Gate(of="answer", enough=1)
    found, counts = take(scores, gate)
    expected = "tells_apart" if apart else "ranks" if ranked else "settled"
    assert counts[expected] == 1 and len(found) == (apart or ranked)
    if found:
        assert (found[0].completions == pool(None)[0].completions) == (p[0] > p[1]), "the model's own order"


def test_the_first_status_that_enough_pairs_have_decides_which_are_taken():
    scores = [tuple(map(logit, p)) for p, _, _ in TABLE]
    apart = [i for i, (_, a, _) in enumerate(TABLE) if a]
    ranked = [i for i, (_, _, r) in enumerate(TABLE) if r]
    for enough, now, indices in ((3, "tells_apart", apart), (4, "ranks", ranked), (5, "settled", [])):
        found, counts = take(scores, Gate(of="answer", enough=enough))
        assert counts[now] == 1 and [p.id for p in found] == [f"p{i}" for i in indices]


def test_the_probability_of_a_pair_knows_no_offset():
    """Bradley-Terry leaves all scores of a question an offset, which the published thresholds depend on."""
    scores = [(0.4, 0.0), (0.0, 0.4), (0.1, 0.0), (2.0, -1.0)]
    moved = [(a + 3.0, b + 3.0) for a, b in scores]
    for gate, same in ((Gate(enough=1), True), (Gate(enough=1, of="answer"), False)):
        assert (take(scores, gate) == take(moved, gate)) == same
    assert [p.id for p in take(scores, Gate(enough=1))[0]] == ["p0", "p1", "p3"]


def test_the_audit_follows_the_models_order():
    found, counts = take([(1.0, 0.0), (0.0, 1.0), (1.0, 0.0)], Gate(enough=1), right=[True, True, None])
    assert [p.right for p in found] == [True, False, None]
    assert (counts["new"], counts["new_audited"], counts["new_right"]) == (3, 2, 1)
    assert {p.says for p in found} == {"reward"}


def test_the_control_takes_as_many_from_the_whole_pool():
    scores = [(1.0, 0.0)] * 3 + [(0.0, 0.0)] * 30
    sure, _ = take(scores, Gate(enough=1))
    drawn, counts = take(scores, Gate(enough=1, random=True), seed=1)
    assert len(drawn) == len(sure) == 3 and {p.id for p in drawn} != {p.id for p in sure}
    assert counts["tells_apart"] == 1


def loop(**gate) -> dict:
    tree = phases("pool", "seed", "teach", pool=PAIRS, seed=PAIRS, teach=with_(REWARD, data="seed"))
    again = {
        "rounds": 3, "until": "settled", "stages": ["judge", "pick", "again"],
        "judge": {"shards": 1, "data": "pool"}, "again": with_(REWARD, data="pick"),
        "pick": {"kind": "select", "data": "pool", "choose": {"kind": "gate", "labelled": "seed"} | gate},
    }  # fmt: skip
    tree["phases"]["loop"] = again
    return tree


def test_a_gate_adds_to_what_it_took_the_round_before():
    config = run_config(loop())
    for round, first in ((2, ("seed", 1)), (3, ("pick", 2)), (4, ("pick", 3))):
        pick = config.stage(round, "pick")
        read = [(s.name, s.round) for s in pick.kind.reads(pick, config)]
        assert read == [("pool", 1), ("judge", round), first]
    assert config.ended_by(config.stage(3, "judge")).name == "pick"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labelled": "seeds"}, "pick.choose.labelled seeds: no stage of that name before it gives pairs"),
        ({"low": 0.6}, "pick.choose: low 0.6 is above high 0.55; swap them"),
        ({"high": 1.5}, "pick.choose.high: 1.5: input should be less"),
    ],
)
def test_a_gate_says_what_it_lacks(change, message):
    with pytest.raises(ValueError, match=message):
        run_config(loop(**change))


def test_reports_tell_how_often_the_gold_answer_agrees():
    config = run_config(loop())
    pick = config.stage(2, "pick")
    counts = {"pairs": 8.0, "audited": 8.0, "right": 6.0, "new": 4.0, "new_audited": 4.0, "new_right": 3.0}
    told = show_of(pick.kind).figures(pick, counts)
    assert told == {"pick/pairs": 8.0, "pick/new": 4.0, "pick/right_share": 0.75, "pick/new_right_share": 0.75}
