"""Which numbers belong together: each objective's advantages, its loss and mean, and where its KL sits.

The only place that knows all objectives of groups (of a critic: see `ppo`; of pairs: see `preference`). A new
one is a section in `config.objectives`, a case in each `match` here, a YAML and an oracle test. Shapes as in
`advantage`: G groups, N answers, S = G*N sequences, T response tokens end to end.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from serl.config.objectives import (
    Cispo,
    Correction,
    Dapo,
    DrGrpo,
    GroupObjective,
    Grpo,
    Gspo,
    MaxRl,
    Mean,
    ReinforcePP,
    ReinforcePPBaseline,
    Rloo,
    own_mean,
)
from serl.learning import advantage, objective
from serl.learning.correction import correction_figures, correction_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProbs:
    """The round's response tokens under the trainer's copy of the sampler, the reference, and vLLM itself."""

    old_T: Tensor
    ref_T: Tensor
    behaviour_T: Tensor
    length_S: Tensor


def advantages(kind: GroupObjective, reward_GN: Tensor, logp: LogProbs) -> Tensor:
    """Advantage of every response token of the round, from the rewards of the kept groups alone."""
    length_S = logp.length_S
    match kind:
        case ReinforcePP(kl=kl):
            return advantage.whiten(
                advantage.reward_to_go(reward_GN.flatten(), logp.old_T, logp.ref_T, length_S, kl)
            )
        case Rloo(kl=kl):
            reward_S = advantage.leave_one_out(reward_GN).flatten()
            return advantage.whiten(advantage.reward_to_go(reward_S, logp.old_T, logp.ref_T, length_S, kl))
        case ReinforcePPBaseline():
            return advantage.whiten(advantage.spread(advantage.centred(reward_GN).flatten(), length_S))
        case DrGrpo():
            return advantage.spread(advantage.centred(reward_GN).flatten(), length_S)
        case MaxRl():
            return advantage.spread(advantage.mean_normalised(reward_GN).flatten(), length_S)
        case Dapo():
            shaped_GN = reward_GN + _overlong(kind, length_S).view_as(reward_GN)
            return advantage.spread(advantage.group_relative(shaped_GN).flatten(), length_S)
        case Grpo() | Gspo() | Cispo():
            return advantage.spread(advantage.group_relative(reward_GN).flatten(), length_S)
        case _:
            assert_never(kind)


def _overlong(kind: Dapo, length_S: Tensor) -> Tensor:
    if kind.overlong is None:
        return torch.zeros(len(length_S))
    rule = kind.overlong
    return advantage.overlong_penalty(length_S, rule.longest, rule.buffer, rule.penalty)


def policy_loss(kind: GroupObjective) -> objective.PolicyLoss | objective.CappedLoss:
    """The loss of one optimizer step; REINFORCE++ and RLOO have their KL in the reward, the others here."""
    match kind:
        case ReinforcePP() | Rloo():
            return _clipped(kind)
        case ReinforcePPBaseline():
            return _clipped(kind, kl=kind.kl, kl_estimate="k2")
        case Gspo():
            return _clipped(kind, kl=kind.kl, level="sequence")
        case Grpo() | DrGrpo() | Dapo() | MaxRl():
            return _clipped(kind, kl=kind.kl)
        case Cispo():
            return objective.CappedLoss(cap=kind.cap, kl=kind.kl)
        case _:
            assert_never(kind)


def _clipped(
    kind: ReinforcePP | Rloo | ReinforcePPBaseline | Gspo | Grpo | DrGrpo | Dapo | MaxRl,
    kl: float = 0.0,
    kl_estimate: objective.KlEstimate = "k3",
    level: Literal["token", "sequence"] = "token",
) -> objective.PolicyLoss:
    return objective.PolicyLoss(
        clip=kind.clip,
        clip_high=kind.clip_high,
        dual_clip=kind.dual_clip,
        entropy=kind.entropy,
        level=level,
        kl=kl,
        kl_estimate=kl_estimate,
    )


def columns(
    kind: GroupObjective,
    reward_GN: Tensor,
    logp: LogProbs,
    loss_mean: Mean | None,
    correction: Correction | None,
) -> dict[str, Tensor]:
    """Everything that `policy_loss` reads, for all response tokens of the round.

    `batch.attach` hands each sample its part. `loss_mean` is for objectives that leave it open.
    """
    assert reward_GN.numel() == logp.length_S.numel(), "one reward per sequence"
    made = token_columns(
        advantages(kind, reward_GN, logp), logp, own_mean(kind) or loss_mean or "token", correction
    )
    match kind:
        case DrGrpo():
            return made | {"divisor": objective.constant_divisor(logp.length_S, kind.longest)}
        case Gspo():
            return made | {"sequence": sequence_column(logp.length_S)}
        case ReinforcePP() | Rloo() | Grpo() | ReinforcePPBaseline() | Dapo() | Cispo() | MaxRl():
            return made
        case _:
            assert_never(kind)


def token_columns(
    advantage_T: Tensor, logp: LogProbs, mean: Mean, correction: Correction | None
) -> dict[str, Tensor]:
    """What every policy loss reads, the advantage corrected for the sampling engine's numerics."""
    if correction is not None:
        advantage_T = advantage_T * correction_weights(
            correction, logp.old_T, logp.behaviour_T, logp.length_S
        )
    return {
        "weight": objective.mean_weights(logp.length_S, mean),
        "advantage": advantage_T,
        "old_logp": logp.old_T,
        "ref_logp": logp.ref_T,
    }


def correction_summary(correction: Correction, logp: LogProbs) -> dict[str, float]:
    """What the correction does to these tokens."""
    return correction_figures(correction, logp.old_T, logp.behaviour_T, logp.length_S)


def sequence_column(length_S: Tensor) -> Tensor:
    """The column `sequence`: the number of each token's sequence, for losses of whole sequences."""
    return advantage.spread(torch.arange(len(length_S)), length_S)
