"""What a training step minimises, token by token; sums, never means.

A loss maps the log-probabilities `logp_T` of T response tokens, and columns of the same length, to one summed loss and summed statistics.
The trainer divides by totals of the *whole* optimizer batch, so neither micro-batches nor ranks change the objective.
Every loss weights its tokens by the column `weight`; the loss is sum(weight * loss) / sum(weight) over the optimizer batch:
weight 1 gives the mean over tokens, weight 1/length the mean over sequences of their token means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from serl.learning.advantage import spread

Columns = Mapping[str, Tensor]


class Loss(Protocol):
    """Summed weighted loss (differentiable), and statistics summed over tokens without their weights."""

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """Clipped policy gradient (PPO, arXiv 1707.06347, eq. 7), plus `kl` times the k3 distance to the reference (GRPO, eq. 4).

    Columns: weight, advantage, old_logp, and ref_logp where `kl` is above 0.
    """

    clip: float
    kl: float = 0.0

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        ratio_T = (logp_T - column["old_logp"]).exp()
        free_T = ratio_T * column["advantage"]
        held_T = ratio_T.clamp(1 - self.clip, 1 + self.clip) * column["advantage"]
        loss_T = -torch.minimum(free_T, held_T)
        with torch.no_grad():
            sums = {
                "ratio": ratio_T.sum(),
                "clip_fraction": (held_T < free_T).sum(),
                "approx_kl": k3(column["old_logp"], logp_T).sum(),
                "entropy": -logp_T.sum(),
            }
        if self.kl > 0:
            distance_T = k3(logp_T, column["ref_logp"])
            loss_T = loss_T + self.kl * distance_T
            sums["ref_kl"] = distance_T.detach().sum()
        return (column["weight"] * loss_T).sum(), sums


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitationLoss:
    """Next-token cross-entropy. Columns: weight."""

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        return -(column["weight"] * logp_T).sum(), {}


def k3(logp_T: Tensor, other_logp_T: Tensor) -> Tensor:
    """Estimate of KL(p || other) from tokens drawn from p: e^d - 1 - d with d = log other - log p; unbiased and never negative."""
    d_T = other_logp_T - logp_T
    return torch.expm1(d_T) - d_T


def mean_weights(length_S: Tensor, mean: Literal["token", "sequence"]) -> Tensor:
    """Token weights that make the loss a mean over tokens, or over sequences of their token means.

    "sequence" is what the official implementation computes with its micro-batches of one; "token", the default here, is its formula
    without the dependence on the micro-batch size.
    """
    match mean:
        case "token":
            return torch.ones(int(length_S.sum()), dtype=torch.float32)
        case "sequence":
            return spread(1.0 / length_S.float(), length_S)


def importance_weights(old_logp_T: Tensor, behaviour_logp_T: Tensor, cap: float) -> Tensor:
    """min(p_trainer / p_sampler, cap): corrects for tokens drawn by an engine whose numerics differ; multiplies the advantage."""
    return (old_logp_T - behaviour_logp_T).exp().clamp(max=cap)


def mismatch(old_logp_T: Tensor, behaviour_logp_T: Tensor) -> dict[str, float]:
    """How far the sampling engine's probabilities are from the trainer's, for the same weights: near 0 unless something is wrong."""
    gap_T = old_logp_T - behaviour_logp_T
    return {
        "mismatch_kl": k3(behaviour_logp_T, old_logp_T).mean().item(),
        "mismatch_mean": gap_T.mean().item(),
        "mismatch_max": gap_T.abs().max().item(),
    }
