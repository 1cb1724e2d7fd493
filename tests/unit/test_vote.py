"""The vote and what becomes of a group."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl.records import Group
from serl.rewards.vote import Vote, fate, vote

LABELS = st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=16)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 1, None], Vote(winner=0, tie=False, agreement=0.5, margin=0.25)),
        ([1, 1, 1, 1], Vote(winner=1, tie=False, agreement=1.0, margin=1.0)),
        ([0, 1, 0, 1], Vote(winner=None, tie=True, agreement=0.5, margin=0.0)),
        ([None, None], Vote(winner=None, tie=False, agreement=0.0, margin=0.0)),
        ([2, None, None, None], Vote(winner=2, tie=False, agreement=0.25, margin=0.25)),
        ([0, 1, 1, 2, 2], Vote(winner=None, tie=True, agreement=0.4, margin=0.0)),
    ],
)
def test_votes(labels, expected):
    assert vote(labels) == expected


@given(LABELS, st.randoms(use_true_random=False))
def test_the_vote_does_not_depend_on_the_order_of_the_answers(labels, rng):
    assert vote(labels) == vote(rng.sample(labels, len(labels)))


@given(LABELS)
def test_the_winner_has_more_votes_than_any_other_and_a_tie_has_none(labels):
    result = vote(labels)
    counts = {k: labels.count(k) for k in set(labels) - {None}}
    if result.winner is None:
        assert result.tie == bool(counts)
        assert result.margin == 0.0
    else:
        assert all(counts[result.winner] > n for k, n in counts.items() if k != result.winner)
        assert result.agreement == counts[result.winner] / len(labels)
        assert 0 < result.margin <= result.agreement


def group(rewards: list[float], winner: int | None = 0, tie: bool = False) -> Group:
    n = len(rewards)
    return Group(
        id="", role="train", question="", gold=None, prompt_ids=(), completions=(), answers=("1",) * n, labels=(0,) * n, winner=winner, tie=tie,
        undecided=0, agreement=0.0, margin=0.0, winner_correct=None, rewards=tuple(rewards),
    )  # fmt: skip


@pytest.mark.parametrize("n", range(2, 65))
def test_the_bounds_of_the_band_belong_to_it(n):
    for k in range(n + 1):
        expected = "too_hard" if 5 * k < n else "too_easy" if 5 * k > 4 * n else "kept"
        assert fate(group([1.0] * k + [0.0] * (n - k)), 0.2, 0.8, voted=True) == expected


def test_unanimous_group_teaches_nothing():
    assert fate(group([1.0] * 16), 0.2, 0.8, voted=True) == "too_easy"


def test_without_a_winner_there_is_no_reward_unless_it_came_from_elsewhere():
    even = [1.0, 0.0]
    assert fate(group(even, winner=None, tie=True), 0.2, 0.8, voted=True) == "tie"
    assert fate(group(even, winner=None), 0.2, 0.8, voted=True) == "no_votes"
    assert fate(group(even, winner=None, tie=True), 0.2, 0.8, voted=False) == "kept"
    assert fate(replace(group(even), winner=0), 0.0, 1.0, voted=True) == "kept"


def test_a_mean_reward_below_zero_is_in_the_band_of_all_shares_alone():
    sad = group([-1.0, -1.0, 0.5, -1.0], winner=None)
    assert fate(sad, 0.0, 1.0, voted=False) == "kept"
    assert fate(sad, 0.1, 1.0, voted=False) == "too_hard"
