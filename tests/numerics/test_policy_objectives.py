"""Every objective of groups against its paper's formula, in plain Python loops over an optimizer batch."""

import math
from itertools import chain
from typing import get_args

import pytest
import torch

from serl.config.objectives import (
    Cispo,
    Dapo,
    DrGrpo,
    GroupObjective,
    Grpo,
    Gspo,
    MaxRl,
    Overlong,
    ReinforcePPBaseline,
)
from serl.learning.advantage import mean_normalised, overlong_penalty
from serl.learning.algorithms import LogProbs, columns, policy_loss
from serl.learning.batch import Sample, attach, collate
from serl.learning.objective import PolicyLoss, divergence, divisor

LENGTHS = [3, 7, 1, 5, 4, 4, 2, 6]  # two groups of four
REWARDS = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
KL = 0.05


def given(seed: int) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """Log-probabilities now, at the round's start and of the reference, by sequence."""
    g = torch.Generator().manual_seed(seed)
    old = [(-3 * torch.rand(n, generator=g, dtype=torch.float64)).tolist() for n in LENGTHS]
    new, ref = (
        [[x + s * torch.randn((), generator=g, dtype=torch.float64).item() for x in seq] for seq in old]
        for s in (0.4, 0.3)
    )
    return new, old, ref


def ours(kind, new, old, ref, micro_batches=((0, 1, 2, 3, 4, 5, 6, 7),)):
    """The loss of one step as the trainer divides it, and its gradient for every token."""
    flat = {name: torch.tensor(list(chain.from_iterable(x))) for name, x in (("old", old), ("ref", ref))}
    logp = LogProbs(
        old_T=flat["old"], ref_T=flat["ref"], behaviour_T=flat["old"], length_S=torch.tensor(LENGTHS)
    )
    made = columns(kind, torch.tensor(REWARDS), logp, "token", None)
    samples = attach([Sample(token_L=torch.zeros(n + 1), num_prompt=1, column={}) for n in LENGTHS], made)
    total, now = 0.0, [torch.tensor(x, requires_grad=True) for x in new]
    for micro in micro_batches:
        rows = collate([samples[i] for i in micro])
        total = total + policy_loss(kind)(torch.cat([now[i] for i in micro]), rows.column)[0]
    loss = total / sum(divisor(s.column) for s in samples)
    loss.backward()
    return loss.item(), [g for x in now for g in x.grad.tolist()]


def oracle(kind, new, old, ref):
    """The same, from the paper; gradients by central differences of the part that is differentiated."""
    scores = [advantage(kind, group, i, g) for g, group in enumerate(REWARDS) for i in range(len(group))]
    if isinstance(kind, ReinforcePPBaseline):
        tokens = [a for a, n in zip(scores, LENGTHS) for _ in range(n)]
        mean = sum(tokens) / len(tokens)
        sd = math.sqrt(sum((a - mean) ** 2 for a in tokens) / len(tokens))
        scores = [(a - mean) / sd for a in scores]
    weights = {"new": new, "frozen": new}

    def value(now):
        total = 0.0
        for s, n in enumerate(LENGTHS):
            terms = [
                token_loss(kind, scores[s], now[s], weights["frozen"][s], old[s], ref[s], t) for t in range(n)
            ]
            match kind:
                case DrGrpo(longest=longest):
                    total += sum(terms) / longest / len(LENGTHS)
                case Gspo():
                    total += sum(terms) / n / len(LENGTHS)
                case _:
                    total += sum(terms) / sum(LENGTHS)
        return total

    gradient, h = [], 1e-6
    for s, seq in enumerate(new):
        for t in range(len(seq)):
            up, down = ([list(x) for x in new] for _ in range(2))
            up[s][t] += h
            down[s][t] -= h
            gradient.append((value(up) - value(down)) / (2 * h))
    return value(new), gradient


def advantage(kind, group, i, g):
    mean = sum(group) / len(group)
    match kind:
        case DrGrpo() | ReinforcePPBaseline():
            return group[i] - mean
        case MaxRl():
            return (group[i] - mean) / mean
        case Dapo(overlong=Overlong() as rule):
            group = [r + punishment(LENGTHS[4 * g + j], rule) for j, r in enumerate(group)]
            mean = sum(group) / len(group)
    sd = math.sqrt(sum((x - mean) ** 2 for x in group) / (len(group) - 1))
    return (group[i] - mean) / sd


def punishment(length, rule):
    """Eq. 13 of DAPO as it is printed, for penalty 1."""
    if length <= rule.longest - rule.buffer:
        return 0.0
    if length <= rule.longest:
        return ((rule.longest - rule.buffer) - length) / rule.buffer
    return -1.0


def token_loss(kind, a, now, frozen, old, ref, t):
    d = ref[t] - now[t]
    k3 = math.exp(d) - 1 - d
    match kind:
        case Cispo(cap=cap, kl=kl):
            return -min(math.exp(frozen[t] - old[t]), cap) * a * now[t] + kl * k3
        case Gspo():
            ratio = math.exp(sum(x - y for x, y in zip(now, old)) / len(now))
        case _:
            ratio = math.exp(now[t] - old[t])
    high = kind.clip if kind.clip_high is None else kind.clip_high
    gain = min(ratio * a, min(max(ratio, 1 - kind.clip), 1 + high) * a)
    if kind.dual_clip is not None and a < 0:
        gain = max(gain, kind.dual_clip * a)
    return -gain + kind.kl * (d * d / 2 if isinstance(kind, ReinforcePPBaseline) else k3)


KINDS = {
    "grpo": Grpo(kl=KL),
    "clip_higher": Grpo(kl=0.0, clip=0.2, clip_high=0.6),
    "dual_clip": Grpo(kl=0.0, dual_clip=1.3),
    "reinforce_pp_baseline": ReinforcePPBaseline(kl=KL),
    "dr_grpo": DrGrpo(longest=9),
    "dr_grpo_with_kl": DrGrpo(longest=9, kl=KL),
    "dapo": Dapo(),
    "dapo_overlong": Dapo(overlong=Overlong(longest=6, buffer=4)),
    "gspo": Gspo(clip=0.05, clip_high=0.1),
    "cispo": Cispo(cap=1.2, kl=KL),
    "max_rl": MaxRl(),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_objective_and_its_gradient_equal_the_papers_formula(name, seed):
    loss, gradient = ours(KINDS[name], *given(seed))
    expected, slope = oracle(KINDS[name], *given(seed))
    assert loss == pytest.approx(expected, abs=2e-6)
    assert gradient == pytest.approx(slope, abs=2e-6)


@pytest.mark.parametrize("name", KINDS)
def test_micro_batches_do_not_change_an_objective(name):
    whole = ours(KINDS[name], *given(0))
    split = ours(KINDS[name], *given(0), micro_batches=((5, 2), (0,), (7, 1, 3), (6, 4)))
    assert split[0] == pytest.approx(whole[0], abs=1e-6) and split[1] == pytest.approx(whole[1], abs=1e-6)


def test_every_kind_has_an_oracle():
    tested = {kind.kind for kind in KINDS.values()} | {"reinforce_pp", "rloo"}  # those two: test_algorithms
    assert tested == {kind.model_fields["kind"].default for kind in get_args(GroupObjective)}


def test_a_bad_token_that_became_likely_is_bounded_by_the_dual_clip():
    # ratio 5, advantage -1: PPO's loss is 5, with c = 3 it is 3 and passes no gradient
    logp_T = torch.tensor([math.log(5.0)], requires_grad=True)
    column = {"advantage": torch.tensor([-1.0]), "old_logp": torch.zeros(1), "weight": torch.ones(1)}
    assert PolicyLoss(clip=0.2)(logp_T, column)[0].item() == pytest.approx(5.0)
    loss = PolicyLoss(clip=0.2, dual_clip=3.0)(logp_T, column)[0]
    loss.backward()
    assert (loss.item(), logp_T.grad.item()) == (pytest.approx(3.0), 0.0)


def test_answers_of_any_length_weigh_their_tokens_alike_in_dr_grpo():
    """In a mean over sequences, a token of a long wrong answer would cost less than one of a short one."""
    _, old, ref = given(0)
    _, gradient = ours(DrGrpo(longest=9), old, old, ref)
    by_token = dict(zip(LENGTHS[:4], torch.tensor(gradient).split(LENGTHS)))
    assert by_token[7][0] == by_token[1][0], "both answers of the group are wrong"


def test_max_rl_follows_the_gradient_of_the_log_of_the_success_rate():
    """Over all answers, E[(r - p) / p * score] is the gradient of log p, p the chance of a right one."""
    logit_V = torch.tensor([0.3, -1.0, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    right_V = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    prob_V = logit_V.softmax(0)
    (exact,) = torch.autograd.grad((prob_V * right_V).sum().log(), logit_V, retain_graph=True)
    p = (prob_V * right_V).sum().item()
    surrogate = (prob_V.detach() * (right_V - p) / p * prob_V.log()).sum()
    torch.testing.assert_close(torch.autograd.grad(surrogate, logit_V)[0], exact)
    assert mean_normalised(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).tolist()[0] == pytest.approx(
        [3.0, -1.0, -1.0, -1.0]
    )


def test_max_rl_refuses_rewards_below_zero_and_learns_nothing_where_nobody_is_right():
    assert mean_normalised(torch.zeros(2, 3)).abs().max() == 0
    with pytest.raises(ValueError, match="max_rl: a reward below 0"):
        mean_normalised(torch.tensor([[-1.0, 1.0]]))


def test_overlong_answers_lose_linearly():
    # 10 tokens at most, of which the last 4 cost something
    lost_S = overlong_penalty(torch.tensor([1, 6, 7, 8, 10, 12]), longest=10, buffer=4, penalty=0.5)
    assert lost_S.tolist() == pytest.approx([0.0, 0.0, -0.125, -0.25, -0.5, -0.5])


@pytest.mark.parametrize(
    ("estimate", "value", "gradient"), [("k1", True, False), ("k2", False, True), ("k3", True, False)]
)
def test_which_kl_estimate_has_the_right_value_and_which_the_right_gradient(estimate, value, gradient):
    """In expectation over tokens of p. k1 has gradient 0: it is refused in a loss (arXiv 2506.09477)."""
    logit_V = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    ref_V = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    logp_V = logit_V.log_softmax(0)
    exact = (logp_V.exp() * (logp_V - ref_V)).sum()
    expected = (logp_V.exp().detach() * divergence(logp_V, ref_V, estimate)).sum()
    slope = torch.autograd.grad(expected, logit_V, retain_graph=True)[0]
    assert (abs(expected.item() - exact.item()) < 1e-9) == value
    assert ((slope - torch.autograd.grad(exact, logit_V)[0]).abs().max().item() < 1e-9) == gradient
    assert estimate != "k1" or slope.abs().max() < 1e-12


def test_the_entropy_bonus_has_the_gradient_of_the_entropy():
    """Over all tokens, each as often as another policy samples it; whatever the advantage is beside it."""
    old, now = torch.randn(2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    now = (old + 0.1 * now).requires_grad_()
    logp_T = now.log_softmax(-1)
    (exact,) = torch.autograd.grad(-(logp_T.exp() * logp_T).sum(), now, retain_graph=True)
    column = {"weight": old.softmax(-1), "old_logp": old.log_softmax(-1), "advantage": torch.ones(6)}
    with_bonus, without = (
        torch.autograd.grad(PolicyLoss(clip=0.5, entropy=c)(logp_T, column)[0], now, retain_graph=True)[0]
        for c in (0.3, 0.0)
    )
    torch.testing.assert_close(with_bonus - without, -0.3 * exact)


@pytest.mark.parametrize("kind", [Dapo(entropy=0.01), Gspo(entropy=0.01), ReinforcePPBaseline(entropy=0.01)])
def test_every_clipped_objective_takes_an_entropy_bonus(kind):
    assert policy_loss(kind).entropy == 0.01
