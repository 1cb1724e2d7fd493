"""What proposals and unlabelled answers earn: tables worked by hand, and slow second implementations."""

import itertools
import math

import pytest
from pydantic import TypeAdapter, ValidationError

from serl.config.rewards import Difficulty, Informative, Learnability, ProposerReward, Scrl, Uncertainty
from serl.rewards.agreement import class_shares, scrl_rewards, scrl_winner
from serl.rewards.proposer import proposer_reward

TABLE = {  # p:       0,    1/4,   1/2,  3/4,  1,   invalid
    Learnability(): (0.0, 0.75, 1.0, 0.75, 0.0, -1.0),
    Difficulty(): (0.0, 0.75, 0.5, 0.25, 0.0, -1.0),
    Difficulty(unsolved=-0.5): (-0.5, 0.75, 0.5, 0.25, 0.0, -1.0),
    Uncertainty(): (0.0, 0.25, 0.5, 0.25, 0.0, -1.0),
    Informative(): (0.0, 1.0, 1.0, 1.0, 0.0, 0.0),
    Learnability(invalid=-0.3): (0.0, 0.75, 1.0, 0.75, 0.0, -0.3),
}


@pytest.mark.parametrize("reward", TABLE)
def test_a_proposal_earns_what_the_table_says(reward):
    assert tuple(proposer_reward(reward, p) for p in (0.0, 0.25, 0.5, 0.75, 1.0, None)) == TABLE[reward]


@pytest.mark.parametrize("reward", [Learnability(), Uncertainty(), Informative()])
def test_too_easy_and_too_hard_earn_the_same(reward):
    for n in range(17):
        assert proposer_reward(reward, n / 16) == pytest.approx(proposer_reward(reward, 1 - n / 16))


def test_every_proposers_reward_is_in_the_union():
    kinds = {reward.kind for reward in TABLE}
    adapter = TypeAdapter(ProposerReward)
    assert {adapter.validate_python({"kind": kind}).kind for kind in kinds} == kinds
    with pytest.raises(ValidationError, match="'learnability', 'difficulty', 'uncertainty', 'informative'"):
        adapter.validate_python({"kind": "hard"})


def test_an_answer_earns_its_classs_share():
    assert class_shares([0, 0, 1, None, 0, 2, 1, None]) == (0.375, 0.375, 0.25, 0.0, 0.375, 0.125, 0.25, 0.0)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [None, None], [0, None, None], []])
def test_where_no_two_agree_nobody_earns(labels):
    assert class_shares(labels) == (0.0,) * len(labels)


def test_mean_class_share_is_the_chance_that_two_answers_agree():
    """The sum over classes of p^2, drawn with replacement: EMPO drives it up."""
    labels = [0] * 5 + [1] * 3 + [2] * 2
    agree = sum(a == b for a, b in itertools.product(labels, labels)) / 100
    assert math.fsum(class_shares(labels)) / 10 == pytest.approx(agree)


def slow_scrl(labels, entropy, positive, margin, negative, weight):
    """Labels first, then rewards, in the order of the authors' script; its constants are arguments."""
    n = len(labels)
    share = {k: sum(x == k for x in labels) / n for k in set(labels)}
    inner = {k: sum(h for h, x in zip(entropy, labels) if x == k) / (share[k] * n) for k in share}
    overall = sum(entropy) / n
    ranked = sorted((k for k in share if k is not None), key=lambda k: -share[k])
    top = None
    if ranked and share[ranked[0]] >= positive and (
        len(ranked) == 1 or share[ranked[0]] - share[ranked[1]] > margin
    ):  # fmt: skip
        top = ranked[0]
    bad = [k for k in share if k not in (top, None) and share[k] < negative and inner[k] >= overall]
    earned = []
    for k in labels:
        if k is None:
            earned.append(-1.0)
            continue
        reward = share[k] if k == top else -(negative - share[k]) if k in bad else 0.0
        earned.append(reward - weight * (inner[k] - overall))
    return earned


GROUPS = [
    [0] * 14 + [1] * 8 + [2] * 6 + [3] * 2 + [None] * 2,  # a clear winner, rare answers
    [0] * 12 + [1] * 8 + [2] * 12,  # a tie
    [0] * 12 + [1] * 8 + [2] * 3 + [3] * 9,  # a lead of 3 / 32, too small
    [0] * 11 + [1] * 3 + [None] * 18,  # too few
    [0] * 12 + [None] * 20,  # one answer: no margin to test
    [None] * 32,
    list(range(32)),
]


@pytest.mark.parametrize("labels", GROUPS)
@pytest.mark.parametrize("step", [3, 5, 7])
def test_scrl_equals_the_slow_oracle(labels, step):
    entropy = [(i * step % 32) / 16 for i in range(32)]
    made = scrl_rewards(Scrl(), labels, entropy)
    assert made == pytest.approx(slow_scrl(labels, entropy, 0.375, 0.125, 0.125, 0.1))


def test_scrl_has_a_winner_only_where_the_vote_is_clear():
    assert [scrl_winner(Scrl(), labels) for labels in GROUPS] == [0, None, None, None, 0, None, None]


def test_rare_but_sure_answers_are_not_punished():
    labels = [0] * 14 + [1] * 15 + [2] * 3
    sure, unsure = ([0.5] * 29 + [h] * 3 for h in (0.1, 0.9))
    assert scrl_rewards(Scrl(entropy=0.0), labels, sure)[-1] == 0.0
    assert scrl_rewards(Scrl(entropy=0.0), labels, unsure)[-1] == pytest.approx(-(0.125 - 3 / 32))
