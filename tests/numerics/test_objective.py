"""Losses as sums: worked examples, derivatives against the textbook, and what the two means are."""

import math

import pytest
import torch

from serl.learning.objective import ImitationLoss, PolicyLoss, k3, mean_weights, mismatch


def columns(advantage, old, ref=None, weight=None):
    return {
        "advantage": torch.tensor(advantage),
        "old_logp": torch.tensor(old),
        "ref_logp": torch.tensor(ref or old),
        "weight": torch.tensor(weight or [1.0] * len(old)),
    }


def test_clipped_loss_worked_by_hand():
    # ratios 1.5, 1.5, 0.5, 0.5; min(ratio A, clip(ratio, 0.8, 1.2) A) = 1.2, -1.5, 0.5, -0.8
    logp_T = torch.tensor([math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)], requires_grad=True)
    loss, sums = PolicyLoss(clip=0.2)(logp_T, columns([1.0, -1.0, 1.0, -1.0], [0.0] * 4))
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8))
    assert sums["clip_fraction"].item() == 2
    assert sums["ratio"].item() == pytest.approx(4.0)
    loss.backward()
    assert logp_T.grad.tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0]), (
        "clipped tokens pass no gradient; the others -ratio A"
    )


def test_on_policy_gradient_is_minus_the_advantage_whatever_the_clip():
    logp_T = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    PolicyLoss(clip=0.2)(logp_T, columns([0.3, -0.7, 2.0], [-1.0, -2.0, -3.0]))[0].backward()
    assert logp_T.grad.tolist() == pytest.approx([-0.3, 0.7, -2.0])


def test_k3_in_the_loss_pulls_towards_the_reference():
    # d(k3)/d(logp) = 1 - e^d with d = ref - logp
    logp_T = torch.tensor([-1.0, -1.0], requires_grad=True)
    loss, sums = PolicyLoss(clip=0.2, kl=0.1)(logp_T, columns([0.0, 0.0], [-1.0, -1.0], ref=[-0.5, -2.0]))
    loss.backward()
    assert sums["ref_kl"].item() == pytest.approx((math.e**0.5 - 1.5) + (math.e**-1 - 0))
    assert logp_T.grad.tolist() == pytest.approx([0.1 * (1 - math.e**0.5), 0.1 * (1 - math.e**-1)])


def test_k3_is_an_unbiased_estimate_of_the_divergence():
    p_V, q_V = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    expected = (p_V * k3(p_V.log(), q_V.log())).sum()
    torch.testing.assert_close(expected, (p_V * (p_V / q_V).log()).sum())
    assert (k3(p_V.log(), q_V.log()) >= 0).all()


def test_imitation_is_weighted_cross_entropy():
    loss, _ = ImitationLoss()(torch.tensor([-1.0, -2.0]), {"weight": torch.tensor([0.1, 1.0])})
    assert loss.item() == pytest.approx(2.1)


def test_sequence_mean_is_the_official_objective_at_micro_batch_one():
    g = torch.Generator().manual_seed(0)
    length_S = torch.tensor([3, 1, 6])
    logp_T, old_T, advantage_T = (torch.randn(10, generator=g) for _ in range(3))
    column = {"advantage": advantage_T, "old_logp": old_T, "weight": mean_weights(length_S, "sequence")}
    parts = zip(*(x.split(length_S.tolist()) for x in (logp_T, old_T, advantage_T)))
    official = 0.0
    for (
        logp,
        old,
        a,
    ) in parts:  # one forward pass per sequence: the mean over its tokens; then the mean over passes
        ratio = (logp - old).exp()
        official += -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a).mean().item() / 3
    assert PolicyLoss(clip=0.2)(logp_T, column)[0].item() / column["weight"].sum().item() == pytest.approx(
        official, rel=1e-5
    )


def test_token_mean_weighs_every_token_alike():
    assert mean_weights(torch.tensor([2, 3]), "token").tolist() == [1.0] * 5


def test_mismatch_is_zero_for_equal_engines_and_never_negative():
    logp_T = -torch.rand(100)
    assert mismatch(logp_T, logp_T) == {"mismatch_kl": 0.0, "mismatch_mean": 0.0, "mismatch_max": 0.0}
    assert mismatch(logp_T, logp_T - 0.1)["mismatch_kl"] > 0


def test_approx_kl_is_the_divergence_from_the_policy_that_sampled():
    """Of ten tokens drawn from p_old exactly in proportion, the estimate is KL(p_old || p_new) itself."""
    old_V, new_V, drawn = (
        torch.tensor([0.7, 0.2, 0.1]),
        torch.tensor([0.4, 0.35, 0.25]),
        [0] * 7 + [1] * 2 + [2],
    )
    _, sums = PolicyLoss(clip=0.2)(new_V.log()[drawn], columns([1.0] * 10, old_V.log()[drawn].tolist()))
    assert sums["approx_kl"].item() / 10 == pytest.approx(
        (old_V * (old_V / new_V).log()).sum().item(), rel=1e-5
    )
