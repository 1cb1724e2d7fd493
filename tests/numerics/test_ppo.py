"""PPO against definitions and numbers worked by hand: advantages, the critic's loss, the KL controller."""

import math

import pytest
import torch
from pydantic import ValidationError

from serl.config.objectives import AdaptiveKl, Correction, Ppo
from serl.learning.advantage import reward_to_go, whiten
from serl.learning.algorithms import LogProbs
from serl.learning.objective import divergence
from serl.learning.ppo import (
    ValueLoss,
    answer_kl,
    at_the_end,
    columns,
    credit,
    gae,
    next_kl,
    penalised,
    policy_loss,
)

LENGTHS = [4, 1, 7, 2]


def tokens(seed: int, count: int = 3) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(LENGTHS), generator=g, dtype=torch.float64) for _ in range(count)]


def logps(old_T: torch.Tensor, ref_T: torch.Tensor) -> LogProbs:
    return LogProbs(old_T=old_T, ref_T=ref_T, behaviour_T=old_T, length_S=torch.tensor(LENGTHS))


def recursive(r: list[float], v: list[float], gamma: float, lam: float, t: int = 0) -> float:
    """A_t = d_t + gamma lam A_{t+1}, by recursion; nothing follows the end."""
    if t == len(r):
        return 0.0
    ahead = v[t + 1] if t + 1 < len(v) else 0.0
    return r[t] + gamma * ahead - v[t] + gamma * lam * recursive(r, v, gamma, lam, t + 1)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [1.0, 0.95, 0.0])
def test_generalised_advantages_equal_the_recursive_definition(gamma, lam):
    reward_T, value_T, _ = tokens(0)
    expected = []
    for r, v in zip(reward_T.split(LENGTHS), value_T.split(LENGTHS)):
        expected += [recursive(r.tolist(), v.tolist(), gamma, lam, t) for t in range(len(r))]
    assert gae(reward_T, value_T, torch.tensor(LENGTHS), gamma, lam).tolist() == pytest.approx(expected)


def test_generalised_advantages_worked_by_hand():
    # d_2 = 4 - 2 = 2; d_1 = 0 + 2/2 - 3 = -2, A_1 = -2 + 2/4; d_0 = 1 + 3/2 - 1 = 1.5, A_0 = 1.5 - 1.5/4
    made = gae(torch.tensor([1.0, 0, 4]), torch.tensor([1.0, 3, 2]), torch.tensor([3]), gamma=0.5, lam=0.5)
    assert made.tolist() == pytest.approx([1.125, -1.5, 2.0])


def test_without_values_and_discount_the_advantage_is_the_return():
    old_T, ref_T, _ = tokens(1)
    reward_S = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    length_S = torch.tensor(LENGTHS)
    earned_T = penalised(at_the_end(reward_S, length_S), logps(old_T, ref_T), 0.1, "k1")
    torch.testing.assert_close(
        gae(earned_T, torch.zeros_like(earned_T), length_S, 1.0, 1.0),
        reward_to_go(reward_S, old_T, ref_T, length_S, 0.1),
    )


def test_a_perfect_critic_leaves_nothing_to_learn():
    reward_T, _, _ = tokens(2)
    value = []
    for r in reward_T.split(LENGTHS):
        value += [sum(r.tolist()[t:]) for t in range(len(r))]
    made = gae(reward_T, torch.tensor(value, dtype=torch.float64), torch.tensor(LENGTHS), 1.0, 0.95)
    assert made.abs().max() < 1e-12


def test_a_reward_falls_on_the_last_token():
    assert at_the_end(torch.tensor([1.0, 2.0]), torch.tensor([3, 1])).tolist() == [0.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize("estimate", ["k1", "k2", "k3"])
def test_kl_in_the_reward_is_taken_off_every_token(estimate):
    reward_T, old_T, ref_T = tokens(3)
    made = penalised(reward_T, logps(old_T, ref_T), 0.2, estimate)
    for t in range(sum(LENGTHS)):
        d = (ref_T[t] - old_T[t]).item()
        distance = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - 1 - d}[estimate]
        assert made[t].item() == pytest.approx(reward_T[t].item() - 0.2 * distance)


def test_advantages_are_whitened_over_the_round_and_returns_are_not():
    kind = Ppo(gamma=0.9, lam=0.8, kl_estimate="k3")
    reward_T, value_T, old_T = tokens(4)
    logp = logps(old_T, old_T - 0.1)
    made = credit(kind, reward_T, logp, value_T, kl=0.3)
    plain_T = gae(penalised(reward_T, logp, 0.3, "k3"), value_T, logp.length_S, 0.9, 0.8)
    assert torch.equal(made.advantage_T, whiten(plain_T))
    assert made.advantage_T.mean().item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(made.return_T, plain_T + value_T)
    assert torch.equal(credit(Ppo(whiten=False), reward_T, logp, value_T, kl=0.0).return_T, gae(
        reward_T, value_T, logp.length_S, 1.0, 1.0) + value_T)  # fmt: skip


def test_a_kl_in_the_loss_is_not_also_in_the_reward():
    reward_T, value_T, old_T = tokens(5)
    logp = logps(old_T, old_T - 0.5)
    kind = Ppo(kl_in="loss", kl_estimate="k2")
    made = credit(kind, reward_T, logp, value_T, kl=0.3)
    torch.testing.assert_close(made.return_T, gae(reward_T, value_T, logp.length_S, 1.0, 1.0) + value_T)
    loss = policy_loss(kind, kl=0.3)
    assert (loss.kl, loss.kl_estimate, policy_loss(Ppo(), kl=0.3).kl) == (0.3, "k2", 0.0)
    column = columns(made, value_T, logp, "token", None)
    bare = policy_loss(kind, kl=0.0)(old_T, column)[0]
    expected = 0.3 * divergence(old_T, old_T - 0.5, "k2").sum()
    assert (loss(old_T, column)[0] - bare).item() == pytest.approx(expected.item())


def test_actor_and_critic_read_the_same_columns():
    reward_T, value_T, old_T = tokens(6)
    logp = logps(old_T, old_T)
    made = columns(credit(Ppo(), reward_T, logp, value_T, 0.0), value_T, logp, "sequence", Correction())
    assert set(made) == {"weight", "advantage", "old_logp", "ref_logp", "old_value", "return"}
    assert made["weight"].sum().item() == pytest.approx(len(LENGTHS))


def test_clipped_value_loss_equals_the_slow_oracle():
    value_T, old_T, return_T = tokens(7)
    weight_T = torch.rand(sum(LENGTHS), dtype=torch.float64)
    column = {"old_value": old_T, "return": return_T, "weight": weight_T}
    for clip in (0.2, 1.0, None):
        expected = 0.0
        for v, o, g, w in zip(value_T.tolist(), old_T.tolist(), return_T.tolist(), weight_T.tolist()):
            held = v if clip is None else o + max(-clip, min(clip, v - o))
            expected += w * 0.5 * max((v - g) ** 2, (held - g) ** 2)
        assert ValueLoss(clip=clip)(value_T, column)[0].item() == pytest.approx(expected)


def test_clipped_value_loss_worked_by_hand():
    # old 0, return 1, clip 0.2: at 0.5 the held value 0.2 is worse: no gradient; -0.5 itself is: drawn up
    value_T = torch.tensor([0.5, -0.5, 0.1], requires_grad=True)
    column = {"old_value": torch.zeros(3), "return": torch.ones(3), "weight": torch.ones(3)}
    loss, sums = ValueLoss(clip=0.2)(value_T, column)
    loss.backward()
    assert loss.item() == pytest.approx((0.8**2 + 1.5**2 + 0.9**2) / 2)
    assert value_T.grad.tolist() == pytest.approx([0.0, -1.5, -0.9])
    assert sums["value_clip_fraction"].item() == 1


def test_the_kl_controller_walks_the_published_trajectory():
    """beta times 1 + K n e, with e = clip(KL / target - 1, -0.2, 0.2): section 2.2 of arXiv 1909.08593."""
    settings, kl, expected = AdaptiveKl(target=6.0, horizon=10_000), 0.2, 0.2
    for measured in (0.5, 6.0, 5.4, 7.0, 60.0, 6.6):
        error = measured / 6.0 - 1.0
        error = max(-0.2, min(0.2, error))
        expected = expected * (1 + error * 256 / 10_000)
        kl = next_kl(kl, measured, 256, settings)
        assert kl == pytest.approx(expected, rel=1e-12)
    assert next_kl(0.2, 6.0, 256, settings) == 0.2
    assert next_kl(0.2, 1e9, 10_000, settings) == pytest.approx(0.24)


def test_the_controller_holds_a_policy_at_its_target():
    """A policy whose distance falls as the weight rises ends where it should."""
    settings, kl = AdaptiveKl(target=2.0, horizon=1000), 5.0
    for _ in range(2000):
        kl = next_kl(kl, 1.0 / kl, 64, settings)
    assert 1.0 / kl == pytest.approx(2.0, rel=1e-3)


def test_the_controller_steers_by_nats_per_answer():
    old_T, ref_T, _ = tokens(8)
    by_answer = [
        sum(x) for x in ((old_T - ref_T)[a:b].tolist() for a, b in ((0, 4), (4, 5), (5, 12), (12, 14)))
    ]
    assert answer_kl(logps(old_T, ref_T)) == pytest.approx(sum(by_answer) / 4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kl_in": "loss"}, "kl_estimate k1 in the loss has a gradient of mean 0"),
        ({"kl": 0.0, "adaptive": AdaptiveKl()}, "give kl a first value above 0"),
        ({"lam": 1.5}, "less than or equal to 1"),
    ],
)
def test_contradictions_are_refused(settings, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Ppo(**settings)
