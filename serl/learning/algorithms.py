"""Which numbers belong together: each policy objective as its advantages, its loss, and where its KL term sits.

The only place that knows all objective kinds. A new one is a section in `config`, a case in each `match` here, a YAML and a golden.
Shapes as in `advantage`: G groups, N answers, S = G*N sequences, T response tokens end to end.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from torch import Tensor

from serl.config.training import Grpo, ReinforcePP, Rloo
from serl.learning import advantage, objective

PolicyKind = ReinforcePP | Rloo | Grpo


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProbs:
    """The round's response tokens under three policies: the trainer's copy of the sampler, the reference, and vLLM itself."""

    old_T: Tensor
    ref_T: Tensor
    behaviour_T: Tensor
    length_S: Tensor


def advantages(kind: PolicyKind, reward_GN: Tensor, logp: LogProbs) -> Tensor:
    """Advantage of every response token of the round, from the rewards of the kept groups alone."""
    match kind:
        case ReinforcePP(kl=kl):
            return advantage.whiten(
                advantage.reward_to_go(reward_GN.flatten(), logp.old_T, logp.ref_T, logp.length_S, kl)
            )
        case Rloo(kl=kl):
            reward_S = advantage.leave_one_out(reward_GN).flatten()
            return advantage.whiten(
                advantage.reward_to_go(reward_S, logp.old_T, logp.ref_T, logp.length_S, kl)
            )
        case Grpo():
            return advantage.spread(advantage.group_relative(reward_GN).flatten(), logp.length_S)
        case _:
            assert_never(kind)


def policy_loss(kind: PolicyKind) -> objective.PolicyLoss:
    """The loss of one optimizer step; only GRPO carries its KL here, the others have it in the reward."""
    match kind:
        case ReinforcePP() | Rloo():
            return objective.PolicyLoss(clip=kind.clip)
        case Grpo():
            return objective.PolicyLoss(clip=kind.clip, kl=kind.kl)
        case _:
            assert_never(kind)


def columns(
    kind: PolicyKind,
    reward_GN: Tensor,
    logp: LogProbs,
    loss_mean: Literal["token", "sequence"],
    importance_cap: float | None,
) -> dict[str, Tensor]:
    """Everything `policy_loss` reads, for all response tokens of the round; `batch.attach` hands each sample its part."""
    assert reward_GN.numel() == logp.length_S.numel(), "one reward per sequence"
    advantage_T = advantages(kind, reward_GN, logp)
    if importance_cap is not None:
        advantage_T = advantage_T * objective.importance_weights(logp.old_T, logp.behaviour_T, importance_cap)
    return {
        "weight": objective.mean_weights(logp.length_S, loss_mean),
        "advantage": advantage_T,
        "old_logp": logp.old_T,
        "ref_logp": logp.ref_T,
    }
