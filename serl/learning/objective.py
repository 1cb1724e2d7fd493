"""What a training step minimises, token by token; sums, never means.

A loss maps the log-probabilities `logp_T` of T response tokens, and columns of the same length, to one summed
loss and summed statistics. The trainer divides by totals of the *whole* optimizer batch, so neither
micro-batches nor ranks change the objective. Every loss weights its tokens by the column `weight`; the loss
is sum(weight * loss) / sum(divisor) over the optimizer batch, where the divisor is the weight itself unless a
column `divisor` says otherwise: weight 1 gives the mean over tokens, weight 1/length the mean over sequences
of their token means, and weight 1 with divisor longest/length the sum over tokens by a constant times the
sequences.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

import torch
from torch import Tensor

from serl.learning.advantage import sequence_sums, spread

Columns = Mapping[str, Tensor]
KlEstimate = Literal["k1", "k2", "k3"]


class Loss(Protocol):
    """Summed weighted loss (differentiable), and statistics summed over tokens without their weights."""

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """Clipped policy gradient (PPO, arXiv 1707.06347, eq. 7), plus `kl` times the distance to the reference.

    `clip_high` lets the ratio rise further than it may fall (DAPO, arXiv 2503.14476, eq. 8); None: as far.
    `dual_clip` c bounds the loss of a token with negative advantage by c |A| (arXiv 1912.09729, eq. 5). At
    level "sequence" all tokens of a sequence have its ratio, exp of their mean log-ratio, while each gets its
    own gradient (GSPO-token, arXiv 2507.18071, eq. 14). `entropy` times the next token's entropy is added to
    what is gained (arXiv 1602.01783), by its gradient alone: that is -E[log p grad log p] over all tokens,
    here over those that were sampled, weighed by their ratio. Columns: weight, advantage, old_logp; ref_logp
    where `kl` is above 0; at level "sequence" also sequence, which numbers each token's sequence.
    """

    clip: float
    clip_high: float | None = None
    dual_clip: float | None = None
    entropy: float = 0.0
    level: Literal["token", "sequence"] = "token"
    kl: float = 0.0
    kl_estimate: KlEstimate = "k3"

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        ratio_T = self._ratio(logp_T, column)
        high = self.clip if self.clip_high is None else self.clip_high
        free_T = ratio_T * column["advantage"]
        held_T = ratio_T.clamp(1 - self.clip, 1 + high) * column["advantage"]
        gain_T = torch.minimum(free_T, held_T)
        if self.dual_clip is not None:
            floor_T = self.dual_clip * column["advantage"]
            gain_T = torch.where(column["advantage"] < 0, torch.maximum(gain_T, floor_T), gain_T)
        if self.entropy > 0:
            gain_T = gain_T - self.entropy * ratio_T.detach() * logp_T.detach() * logp_T
        sums = _policy_sums(logp_T, ratio_T, held_T < free_T, column)
        return _with_kl(-gain_T, logp_T, column, self.kl, self.kl_estimate, sums)

    def _ratio(self, logp_T: Tensor, column: Columns) -> Tensor:
        gap_T = logp_T - column["old_logp"]
        match self.level:
            case "token":
                return gap_T.exp()
            case "sequence":
                length_S = lengths(column["sequence"])
                mean_T = spread(sequence_sums(gap_T.detach(), length_S) / length_S, length_S)
                return (mean_T + logp_T - logp_T.detach()).exp()
            case _:
                assert_never(self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class CappedLoss:
    """log p times the advantage and a capped ratio that is not differentiated (CISPO, arXiv 2506.13585).

    Every token keeps its gradient. Plus `kl` times the k3 distance to the reference.
    Columns as in `PolicyLoss`. `clip_fraction` counts the tokens whose ratio is capped.
    """

    cap: float
    kl: float = 0.0

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        ratio_T = (logp_T - column["old_logp"]).exp().detach()
        loss_T = -ratio_T.clamp(max=self.cap) * column["advantage"] * logp_T
        sums = _policy_sums(logp_T, ratio_T, ratio_T > self.cap, column)
        return _with_kl(loss_T, logp_T, column, self.kl, "k3", sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitationLoss:
    """Next-token cross-entropy. Columns: weight."""

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        return -(column["weight"] * logp_T).sum(), {}


@torch.no_grad()
def _policy_sums(logp_T: Tensor, ratio_T: Tensor, clipped_T: Tensor, column: Columns) -> dict[str, Tensor]:
    return {
        "ratio": ratio_T.sum(),
        "clip_fraction": clipped_T.sum(),
        "approx_kl": k3(column["old_logp"], logp_T).sum(),
        "entropy": -logp_T.sum(),
    }


def _with_kl(
    loss_T: Tensor, logp_T: Tensor, column: Columns, kl: float, estimate: KlEstimate, sums: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the loss and of `kl` times the distance to the reference."""
    if kl > 0:
        distance_T = divergence(logp_T, column["ref_logp"], estimate)
        loss_T = loss_T + kl * distance_T
        sums["ref_kl"] = distance_T.detach().sum()
    return (column["weight"] * loss_T).sum(), sums


def divergence(logp_T: Tensor, other_logp_T: Tensor, estimate: KlEstimate) -> Tensor:
    """KL(p || other) of each token, drawn from p, by one of three estimates (Schulman 2020).

    With d = log other - log p: k1 = -d, unbiased and of either sign; k2 = d^2 / 2, biased, but its gradient
    is the divergence's; k3 = e^d - 1 - d, unbiased and never negative.
    """
    match estimate:
        case "k1":
            return logp_T - other_logp_T
        case "k2":
            return (logp_T - other_logp_T).square() / 2
        case "k3":
            return k3(logp_T, other_logp_T)
        case _:
            assert_never(estimate)


def k3(logp_T: Tensor, other_logp_T: Tensor) -> Tensor:
    """The k3 estimate of KL(p || other) from tokens drawn from p: e^d - 1 - d with d = log other - log p."""
    d_T = other_logp_T - logp_T
    return torch.expm1(d_T) - d_T


def mean_weights(length_S: Tensor, mean: Literal["token", "sequence"]) -> Tensor:
    """Token weights that make the loss a mean over tokens, or over sequences of their token means.

    "sequence" is what the official implementation computes with its micro-batches of one; "token", the
    default here, is its formula without the dependence on the micro-batch size.
    """
    match mean:
        case "token":
            return torch.ones(int(length_S.sum()), dtype=torch.float32)
        case "sequence":
            return spread(1.0 / length_S.float(), length_S)


def constant_divisor(length_S: Tensor, longest: int) -> Tensor:
    """The column `divisor` of a loss divided by `longest` for each sequence (Dr. GRPO, arXiv 2503.20783)."""
    return spread(longest / length_S.float(), length_S)


def divisor(column: Columns) -> float:
    """What a sample's columns add to the number that its optimizer batch's summed loss is divided by."""
    return column.get("divisor", column["weight"]).sum(dtype=torch.float64).item()


def lengths(sequence_T: Tensor) -> Tensor:
    """Tokens of each sequence of a micro-batch, in order, from the column `sequence`."""
    return torch.unique_consecutive(sequence_T, return_counts=True)[1]


def mismatch(old_logp_T: Tensor, behaviour_logp_T: Tensor) -> dict[str, float]:
    """How far the sampling engine's probabilities are from the trainer's, for the same weights.

    Near 0 unless something is wrong.
    """
    gap_T = old_logp_T - behaviour_logp_T
    return {
        "mismatch_kl": k3(behaviour_logp_T, old_logp_T).mean().item(),
        "mismatch_mean": gap_T.mean().item(),
        "mismatch_max": gap_T.abs().max().item(),
    }
