"""The three estimators: examples worked by hand, and identities that hold for any rewards."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serl.learning.advantage import group_relative, leave_one_out, reward_to_go, spread, whiten

rewards = st.integers(2, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=n, max_size=n), min_size=1, max_size=5
    )
)


def test_return_with_kl_in_the_reward_worked_by_hand():
    # two sequences of 2 and 1 tokens, rewards 1 and 0, beta 0.5, log p - log ref = (0.2, -0.4) and (0.6)
    # token rewards (-0.1, 0.2 + 1) and (-0.3); returns (1.1, 1.2) and (-0.3)
    logp_T, ref_T = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.2, -1.6, -1.1])
    return_T = reward_to_go(torch.tensor([1.0, 0.0]), logp_T, ref_T, torch.tensor([2, 1]), kl=0.5)
    assert return_T.tolist() == pytest.approx([1.1, 1.2, -0.3])


def test_whitening_worked_by_hand_divides_by_the_population_deviation():
    # mean 2/3, variance (0.4333^2 + 0.5333^2 + 0.9667^2) / 3 = 0.468889
    assert whiten(torch.tensor([1.1, 1.2, -0.3])).tolist() == pytest.approx(
        [0.632830, 0.778868, -1.411698], abs=1e-5
    )


def test_group_relative_worked_by_hand_divides_by_the_sample_deviation():
    assert group_relative(torch.tensor([[1.0, 0.0, 0.0, 1.0]])).tolist()[0] == pytest.approx(
        [0.866025, -0.866025, -0.866025, 0.866025]
    )


def test_leave_one_out_worked_by_hand():
    assert leave_one_out(torch.tensor([[1.0, 0.0, 0.0, 1.0]])).tolist()[0] == pytest.approx(
        [2 / 3, -2 / 3, -2 / 3, 2 / 3]
    )


def test_rewards_beyond_the_limit_are_clipped():
    zero_T = torch.zeros(2)
    assert reward_to_go(
        torch.tensor([50.0, -50.0]), zero_T, zero_T, torch.tensor([1, 1]), kl=0.1
    ).tolist() == [10.0, -10.0]


@settings(max_examples=50, deadline=None)
@given(rewards)
def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_one(table):
    reward_GN = torch.tensor(table, dtype=torch.float64)
    n = reward_GN.shape[1]
    centred_GN = reward_GN - reward_GN.mean(dim=1, keepdim=True)
    torch.testing.assert_close(leave_one_out(reward_GN), centred_GN * n / (n - 1))


@pytest.mark.parametrize("estimator", [group_relative, leave_one_out])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_unanimous_group_teaches_nothing(estimator, value):
    assert estimator(torch.full((3, 5), value)).abs().max() == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=40).filter(lambda v: max(v) - min(v) > 0.1))
def test_whitened_values_have_mean_zero_and_variance_one(values):
    white_T = whiten(torch.tensor(values))
    assert white_T.mean().item() == pytest.approx(0, abs=1e-5)
    assert white_T.var(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_whitening_equal_values_gives_zeros_not_infinities():
    assert whiten(torch.full((7,), 3.3)).abs().max() < 1e-3


def test_without_kl_every_token_of_a_sequence_returns_its_reward():
    logp_T = torch.randn(9)
    reward_S, length_S = torch.tensor([0.25, 1.0, -0.5]), torch.tensor([4, 1, 4])
    assert torch.equal(
        reward_to_go(reward_S, logp_T, logp_T - 1, length_S, kl=0.0), spread(reward_S, length_S)
    )


def test_one_sequence_of_many_returns_what_it_returns_alone():
    g = torch.Generator().manual_seed(0)
    length_S = torch.tensor([30, 1, 500, 7])
    logp_T, ref_T = torch.randn(538, generator=g), torch.randn(538, generator=g)
    reward_S = torch.rand(4, generator=g)
    together = reward_to_go(reward_S, logp_T, ref_T, length_S, kl=0.1).split(length_S.tolist())
    for i, (logp, ref) in enumerate(zip(logp_T.split(length_S.tolist()), ref_T.split(length_S.tolist()))):
        torch.testing.assert_close(
            together[i], reward_to_go(reward_S[i : i + 1], logp, ref, length_S[i : i + 1], kl=0.1)
        )
