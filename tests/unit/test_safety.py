"""What is watched during self-play: every rule fires on its own collapse, and none on the noise of a healthy run."""

import dataclasses
import math
import random

import pytest

from serl.config.rules import Accuracy, Conviction, Safety
from serl.records import Group
from serl.rewards.vote import vote
from serl.safety.vitals import Vitals, examine, fewer_right, label_entropy, mean_change, take_vitals

DEFAULT = Safety()
ACCURACY_ALONE = Safety(conviction=Conviction(action="ignore"))


def group(id: str, labels: list[int | None], *, role: str = "train", right: bool | None = None) -> Group:
    result = vote(labels)
    return Group(
        id=id, role=role, question="q", gold=None, prompt_ids=(), completions=(),
        answers=tuple(None if k is None else f"a{k}" for k in labels), labels=tuple(labels), winner=result.winner, tie=result.tie,
        undecided=0, agreement=result.agreement, margin=result.margin,
        winner_correct=right if result.winner is not None else None, rewards=tuple(float(k == result.winner) for k in labels),
    )  # fmt: skip


def leads(num_right: int, lead: float = 0.4) -> dict[str, float]:
    """Anchors of which the first are voted on rightly, all by the same margin."""
    return {f"s{i}": lead if i < num_right else -lead for i in range(100)}


def vitals(round: int, **changes) -> Vitals:
    healthy = Vitals(
        round=round, leads=leads(60), anchor_agreement=0.5, agreement=0.5, margin=0.3, entropy=1.2, monotony=0.06,
        unparsed=0.01, truncated=0.02, undecided=0.0, length=100.0, kept=0.7, duplicates=0.4,
    )  # fmt: skip
    return dataclasses.replace(healthy, **changes)


def fired(now: Vitals, *earlier: Vitals, rules: Safety = DEFAULT) -> set[str]:
    return {a.rule for a in examine(now, earlier or (vitals(1),), rules)}


def test_vitals_of_groups_counted_by_hand():
    groups = [
        group("a", [0, 0, 0, 1]),
        group("b", [0, 0, 1, 1]),  # a tie
        group("c", [0, 0, 0, 0]),
        group("x", [0, 0, None, 1], role="anchor", right=True),
        group("y", [0, 1, None, None], role="anchor"),  # a tie: wrong
        group(
            "z", [0, 0, 0, 1], role="anchor", right=None
        ),  # its winner could not be judged: it says nothing
    ]
    answers = {"completions": 24.0, "unparsed": 2.0, "truncated": 1.0, "undecided": 0.0, "tokens": 240.0}
    v = take_vitals(
        2,
        groups,
        1,
        answers,
        {"candidates": 10.0, "exact_duplicate": 1.0, "near_duplicate": 3.0, "novel": 6.0},
    )
    assert v.leads == {"x": 0.25, "y": 0.0} and v.accuracy == 0.5 and v.conviction == 0.125
    assert v.agreement == pytest.approx((0.75 + 0.5 + 1) / 3) and v.margin == pytest.approx((0.5 + 0 + 1) / 3)
    assert (
        v.monotony == pytest.approx(2 / 3)
        and v.kept == pytest.approx(1 / 3)
        and v.duplicates == pytest.approx(0.4)
    )
    assert v.silent == pytest.approx(3 / 24) and v.length == pytest.approx(10.0)


def test_vitals_of_a_round_without_anything_are_numbers():
    v = take_vitals(1, [], 0, {}, None)
    assert v.accuracy is None and v.duplicates is None and v.length == 0.0
    assert not examine(v, (v,), DEFAULT)


def test_label_entropy_is_that_of_the_votes_cast():
    assert label_entropy([None, None]) == 0 and label_entropy([3, 3, None]) == 0
    assert label_entropy([0, 1, 2, 3]) == pytest.approx(math.log(4))


def test_the_paired_test_is_the_sign_test_and_forgets_anchors_that_only_one_round_has():
    before = {"a": 0.1, "b": 0.2, "c": 0.3, "d": -0.1, "gone": 0.5}
    assert fewer_right(before, {"a": -0.1, "b": 0.0, "c": 0.9, "d": 0.1, "new": -1.0}) == (
        2,
        1,
        pytest.approx(4 / 8),
    )
    assert fewer_right(before, before) == (0, 0, 1.0)


def test_changes_are_paired_by_anchor_and_measured_in_their_standard_errors():
    before = {str(i): 0.1 for i in range(4)} | {"gone": -1.0}
    change, z = mean_change(before, {"0": 0.0, "1": -0.1, "2": 0.1, "3": -0.4})
    assert change == pytest.approx(-0.2) and z == pytest.approx(-0.2 / (math.sqrt(0.14 / 3) / 2))
    assert mean_change(before, before) == (0.0, 0.0) and mean_change({}, {}) == (0.0, 0.0)
    assert mean_change({"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.25}) == (-0.25, -math.inf)


def test_nothing_is_said_of_the_first_round_nor_of_one_like_it():
    awful = vitals(1, leads=leads(0), unparsed=1.0, monotony=1.0, entropy=0.0, length=1.0, duplicates=1.0)
    assert examine(awful, (), DEFAULT) == ()
    assert not fired(vitals(2))


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("silence", {"truncated": 0.5}),
        ("monotony", {"monotony": 0.5}),
        ("entropy", {"entropy": 0.05}),
        ("length", {"length": 250.0}),
        ("length", {"length": 40.0}),
        ("duplicates", {"duplicates": 0.95}),
    ],
)
def test_each_rule_fires_on_its_collapse_alone_and_can_be_switched_off(rule, changes):
    assert fired(vitals(2, **changes)) == {rule}
    assert fired(vitals(2, **changes), rules=Safety.model_validate({rule: {"action": "ignore"}})) == set()


def test_accuracy_and_conviction_can_each_be_switched_off():
    worse = vitals(2, leads=leads(40))
    assert fired(worse) == {"accuracy", "conviction"}
    assert fired(worse, rules=Safety(accuracy=Accuracy(action="ignore"))) == {"conviction"}
    assert fired(worse, rules=ACCURACY_ALONE) == {"accuracy"}


def test_conviction_fires_where_votes_grow_surer_and_not_more_right_for_it():
    """Against 30 votes right and 70 wrong, by as much: what counts is which of them grow surer."""
    first = vitals(1, leads=leads(30))

    def surer(right: float, wrong: float) -> Vitals:
        return vitals(2, leads={i: lead + (right if lead > 0 else -wrong) for i, lead in leads(30).items()})

    assert fired(surer(0.2, 0.2), first) == {"conviction"}, "the fall of the lead"
    assert fired(surer(0.2, 0.1), first) == {"conviction"}, "no fall to speak of, but no rise either"
    assert fired(surer(0.3, 0.1), first) == set(), "the right ones gain more than the wrong ones"
    assert fired(surer(0.0, -0.2), first) == set(), "the wrong ones are less sure"
    few = [
        dataclasses.replace(v, leads={i: v.leads[i] for i in list(v.leads)[25:44]})
        for v in (first, surer(0.2, 0.2))
    ]
    assert fired(few[1], few[0]) == set(), "too few to tell"
    assert fired(surer(0.2, 0.1), vitals(1, leads=leads(30, lead=0.1)), first) == {"conviction"}, (
        "by the first round, not by the last"
    )


def test_accuracy_is_compared_with_the_best_proof_among_all_earlier_rounds():
    better = leads(80)
    (alarm,) = examine(
        vitals(4), (vitals(1), vitals(2, leads=better), vitals(3, leads=better)), ACCURACY_ALONE
    )
    assert (
        alarm.figures["against_round"] == 2
        and alarm.figures["lost"] == 20
        and alarm.figures["p"] == pytest.approx(3 / 2**20)
    )


def test_the_sentence_tells_whether_the_votes_are_surer_or_the_policy_is_being_undone():
    surer, sure = examine(vitals(2, leads=leads(40), anchor_agreement=0.8), (vitals(1),), DEFAULT)
    (undone, _) = examine(vitals(2, leads=leads(40), anchor_agreement=0.2), (vitals(1),), DEFAULT)
    assert (
        "40.0%, 60.0% in round 1 (20 lost, 0 won" in surer.sentence
        and "rose from 0.50 to 0.80" in surer.sentence
    )
    assert "fell from 0.50 to 0.20" in undone.sentence and "from +0.080 in round 1 to -0.080" in sure.sentence


def voted(round: int, chances: list[float], rng: random.Random) -> Vitals:
    """Anchors voted on by 16 answers each, of which a share is right and the others split between two wrong answers."""
    found = {}
    for i, chance in enumerate(chances):
        labels: list[int | None] = [0 if rng.random() < chance else rng.choice((1, 1, 2)) for _ in range(16)]
        result = vote(labels)
        found[str(i)] = result.margin if result.winner == 0 else -result.margin
    return vitals(round, leads=found)


def test_false_alarms_on_healthy_noise_are_as_rare_as_the_rules_say():
    """Anchors of all difficulties, voted on anew by one and the same policy in three rounds: two looks, by two rules."""
    rng = random.Random("healthy")
    runs, alarms = 500, 0
    for _ in range(runs):
        chances = [rng.random() for _ in range(50)]
        rounds = [voted(r, chances, rng) for r in (1, 2, 3)]
        alarms += any(fired(rounds[r], *rounds[:r]) for r in (1, 2))
    assert alarms / runs < 0.05


def test_a_policy_that_learns_raises_no_alarm():
    """It comes to solve what it could nearly solve, and stays as it was on the rest."""
    rng = random.Random("learning")
    for _ in range(100):
        chances = [rng.random() for _ in range(50)]
        assert not fired(
            voted(2, [min(1.0, c + 0.15) if c > 0.35 else c for c in chances], rng), voted(1, chances, rng)
        )


@pytest.mark.parametrize(("num_anchors", "seen_at_least"), [(50, 0.8), (100, 0.95)])
def test_a_policy_that_grows_surer_of_wrong_answers_is_mostly_seen_at_once(num_anchors, seen_at_least):
    rng = random.Random("collapse")
    seen = 0
    for _ in range(100):
        chances = [rng.random() * 0.7 for _ in range(num_anchors)]
        seen += bool(fired(voted(2, [c * 0.7 for c in chances], rng), voted(1, chances, rng)))
    assert seen / 100 >= seen_at_least
