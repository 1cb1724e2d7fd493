"""Losses of pairs and labels against their papers' formulas, one answer at a time in plain Python."""

import math
from itertools import pairwise

import pytest
import torch

from serl.config.objectives import BradleyTerry, Dpo, Forecast, ImplicitReward
from serl.learning.batch import Sample, collate
from serl.learning.preference import (
    cross_entropy,
    firsts,
    implicit_rewards,
    kto_anchor,
    pairs,
    preference_loss,
    reads_pairs,
)

LENGTHS = [3, 5, 1, 4, 6, 2]  # three pairs
LABELS = [1.0, 0.0, 0.8, 0.2, 0.0, 1.0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def answers(seed: int) -> tuple[list[list[float]], list[list[float]]]:
    """Log-probabilities of three pairs' tokens, now and under the reference."""
    g = torch.Generator().manual_seed(seed)
    ref = [(-2 * torch.rand(n, generator=g, dtype=torch.float64)).tolist() for n in LENGTHS]
    now = [[x + torch.randn((), generator=g, dtype=torch.float64).item() for x in seq] for seq in ref]
    return now, ref


def ours(kind, now, ref, order=(0, 1, 2, 3, 4, 5), labels=LABELS, **more) -> tuple[float, list[list[float]]]:
    """The mean loss when every sequence weighs 1, and its gradient by sequence."""
    leaf = [torch.tensor(x, requires_grad=True) for x in now]
    samples = [
        Sample(
            token_L=torch.zeros(n + 1),
            num_prompt=1,
            column={
                "weight": torch.full((n,), 1 / n, dtype=torch.float64),
                "ref_logp": torch.tensor(ref[i]),
                "sequence": torch.full((n,), i),
                "label": torch.full((n,), labels[i], dtype=torch.float64),
                **{name: torch.full((n,), value) for name, value in more.items()},
            },
        )
        for i, n in enumerate(LENGTHS)
    ]
    rows = collate([samples[i] for i in order])
    loss = preference_loss(kind)(torch.cat([leaf[i] for i in order]), rows.column)[0] / len(order)
    loss.backward()
    return loss.item(), [x.grad.tolist() for x in leaf]


def log_ratios(now, ref) -> list[float]:
    return [sum(x) - sum(y) for x, y in zip(now, ref)]


@pytest.mark.parametrize("positive", [0.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_dpo_and_dpo_positive_equal_the_slow_oracle(positive, seed):
    now, ref = answers(seed)
    ratio, beta, total = log_ratios(now, ref), 0.1, 0.0
    for p in range(3):
        lost = max(0.0, sum(ref[2 * p]) - sum(now[2 * p]))
        gap = beta * (ratio[2 * p] - ratio[2 * p + 1] - positive * lost)
        label = LABELS[2 * p]
        total -= label * math.log(sigmoid(gap)) + (1 - label) * math.log(sigmoid(-gap))
    assert ours(Dpo(beta=beta, positive=positive), now, ref)[0] == pytest.approx(total / 3)


def test_dpo_gradient_is_that_of_its_paper():
    """-beta sigmoid(r_worse - r_better) up and down: section 4 of arXiv 2305.18290."""
    now, ref = answers(0)
    _, gradient = ours(Dpo(beta=0.3), now, ref)
    ratio = log_ratios(now, ref)
    push = 0.3 * sigmoid(0.3 * (ratio[1] - ratio[0])) / 3
    assert gradient[0] == pytest.approx([-push] * 3) and gradient[1] == pytest.approx([push] * 5)


def test_dpo_positive_draws_up_a_better_answer_that_lost_probability():
    """The better one has lost 2 nats and the worse one 8: DPO is content with that."""
    slopes = []
    for kind in (Dpo(beta=0.1), Dpo(beta=0.1, positive=50.0)):
        loss = preference_loss(kind)
        leaf = torch.tensor([-3.0, -9.0], requires_grad=True)
        column = {"weight": torch.full((2,), 0.5), "ref_logp": torch.full((2,), -1.0), "label": torch.ones(2),
                  "sequence": torch.arange(2)}  # fmt: skip
        loss(leaf, column)[0].backward()
        slopes.append(leaf.grad[0].item())
    assert slopes[0] == pytest.approx(-0.1 * sigmoid(-0.6), rel=1e-5)
    assert slopes[1] == pytest.approx(-0.1 * 51 * sigmoid(-(0.6 - 10.0)), rel=1e-5)


@pytest.mark.parametrize("form", ["cross_entropy", "kto", "nca"])
@pytest.mark.parametrize("seed", range(2))
def test_implicit_rewards_equal_the_slow_oracle(form, seed):
    now, ref = answers(seed)
    beta, anchor, total = 0.4, 0.3, 0.0
    labels = [float(round(x)) for x in LABELS] if form == "kto" else LABELS
    reward = [beta * x for x in log_ratios(now, ref)]
    match form:
        case "cross_entropy":
            for r, label in zip(reward, labels):
                total -= label * math.log(sigmoid(r)) + (1 - label) * math.log(sigmoid(-r))
        case "kto":
            for r, label in zip(reward, labels):
                total += 1 - (sigmoid(r - anchor) if label else sigmoid(anchor - r))
        case "nca":
            for p in range(3):
                better, worse = reward[2 * p], reward[2 * p + 1]
                total += 2 * (
                    -math.log(sigmoid(better))
                    - 0.5 * math.log(sigmoid(-better))
                    - 0.5 * math.log(sigmoid(-worse))
                )
    made, _ = ours(ImplicitReward(form=form, beta=beta), now, ref, labels=labels, anchor=anchor)
    assert made == pytest.approx(total / 6)


def test_step_rewards_add_up_to_the_answers():
    """q_t - q_{t-1} with q_t the prefix sum of beta log-ratios: arXiv 2412.01981."""
    now, ref = (torch.tensor(x[4]) for x in answers(1))
    reward_T = implicit_rewards(now, ref, 0.05)
    prefix = [0.05 * (sum(now[:t].tolist()) - sum(ref[:t].tolist())) for t in range(7)]
    assert reward_T.tolist() == pytest.approx([b - a for a, b in pairwise(prefix)])


def test_kto_anchor_is_never_below_zero():
    assert kto_anchor(torch.tensor([0.5, -0.1])) == pytest.approx(0.2)
    assert kto_anchor(torch.tensor([-0.5, 0.1])) == 0.0


@pytest.mark.parametrize("centre", [0.0, 0.01])
def test_bradley_terry_equals_the_slow_oracle(centre):
    score, margin = [1.5, 0.2, -0.3, 0.4, 2.0, 5.0], [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    label, weight, total = [1.0, 9.0, 0.7, 9.0, 0.0, 9.0], [1.0, 1.0, 0.5, 0.5, 2.0, 2.0], 0.0
    for p in range(3):
        gap = score[2 * p] - score[2 * p + 1] - margin[2 * p]
        loss = -label[2 * p] * math.log(sigmoid(gap)) - (1 - label[2 * p]) * math.log(sigmoid(-gap))
        total += 2 * weight[2 * p] * (loss + centre * (score[2 * p] + score[2 * p + 1]) ** 2)
    column = {"label": torch.tensor(label), "margin": torch.tensor(margin), "weight": torch.tensor(weight)}
    loss, sums = preference_loss(BradleyTerry(centre=centre))(torch.tensor(score), column)
    assert loss.item() == pytest.approx(total)
    assert sums["pair_accuracy"].item() / 6 == pytest.approx(1 / 3), "a mean over scores: each has one token"


def test_a_badly_wrong_pair_still_has_a_gradient():
    """log(sigmoid(x) + 1e-5) has none at x = -60: such a reward model never unlearns its worst pairs."""
    gap = torch.tensor(-60.0, requires_grad=True)
    cross_entropy(gap, torch.tensor(1.0)).backward()
    assert gap.grad.item() == pytest.approx(-1.0)


def test_centring_fixes_the_offset_that_pairs_leave_free():
    column = {"label": torch.ones(2), "margin": torch.zeros(2), "weight": torch.ones(2)}
    score_S, moved_S = torch.tensor([1.0, -1.0]), torch.tensor([11.0, 9.0])
    free, held = preference_loss(BradleyTerry()), preference_loss(BradleyTerry(centre=0.01))
    assert free(score_S, column)[0] == free(moved_S, column)[0]
    assert held(score_S, column)[0] == free(score_S, column)[0] < held(moved_S, column)[0]


def test_a_forecast_is_best_at_its_soft_label():
    """Cross-entropy is a proper score: with a label of 0.3 no logit is better than log(0.3 / 0.7)."""
    score_S = torch.linspace(-4, 4, 801)
    column = {"label": torch.full((1,), 0.3), "weight": torch.ones(1)}
    losses = [preference_loss(Forecast())(x[None], column)[0].item() for x in score_S]
    assert score_S[losses.index(min(losses))].item() == pytest.approx(math.log(0.3 / 0.7), abs=0.01)


@pytest.mark.parametrize("kind", [Dpo(), ImplicitReward(), ImplicitReward(form="nca")])
def test_pairs_may_come_in_any_order_and_a_pass_without_samples_is_zero(kind):
    now, ref = answers(2)
    assert ours(kind, now, ref, order=(4, 5, 0, 1, 2, 3)) == (
        pytest.approx(ours(kind, now, ref)[0]),
        [pytest.approx(x) for x in ours(kind, now, ref)[1]],
    )
    nothing = torch.zeros(0, requires_grad=True)
    column = {name: torch.zeros(0) for name in ("weight", "ref_logp", "label", "anchor")}
    loss = preference_loss(kind)(nothing, column | {"sequence": torch.zeros(0, dtype=torch.long)})[0]
    loss.backward()
    assert loss.item() == 0


def test_a_pair_that_was_split_is_our_fault():
    with pytest.raises(AssertionError, match="plan_pairs"):
        pairs(torch.zeros(3))


def test_a_sequences_label_is_that_of_its_first_token():
    assert firsts(torch.tensor([1.0, 1, 0, 2, 2, 2]), torch.tensor([2, 1, 3])).tolist() == [1.0, 0.0, 2.0]


def test_which_objectives_read_pairs():
    kinds = (
        BradleyTerry(),
        Dpo(),
        ImplicitReward(form="nca"),
        Forecast(),
        ImplicitReward(),
        ImplicitReward(form="kto"),
    )
    assert [reads_pairs(kind) for kind in kinds] == [True] * 3 + [False] * 3
