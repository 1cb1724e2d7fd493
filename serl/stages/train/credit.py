"""What the tokens of a turn's answers earned, by objective; and what an optimizer step minimises for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from serl.config.objectives import Ppo, Vine
from serl.learning import algorithms, ppo, vine
from serl.learning.objective import Loss
from serl.records import Group, Walk
from serl.stages.train.section import Train


def columns(
    settings: Train,
    kept: Sequence[Group],
    walks: Sequence[Walk],
    value_T: Tensor | None,
    logp: algorithms.LogProbs,
    kl: float,
) -> dict[str, Tensor]:
    """Everything that losses read, for all response tokens of the turn.

    `walks` are of VinePPO, `value_T` are a critic's values under the turn's first weights.
    """
    reward_GN = torch.tensor([g.rewards for g in kept])
    kind, mean, correction = settings.objective, settings.loss_mean, settings.correction
    match kind:
        case Vine():
            return vine.columns(kind, walks, reward_GN.flatten(), logp, mean or "token", correction)
        case Ppo():
            assert value_T is not None, "PPO has a critic"
            reward_T = ppo.at_the_end(reward_GN.flatten(), logp.length_S)
            made = ppo.credit(kind, reward_T, logp, value_T, kl)
            return ppo.columns(made, value_T, logp, mean or "token", correction)
        case _:
            return algorithms.columns(kind, reward_GN, logp, mean, correction)


def policy_loss(settings: Train, kl: float) -> Loss:
    """The policy's loss under the KL weight of now."""
    match settings.objective:
        case Vine() as kind:
            return vine.policy_loss(kind)
        case Ppo() as kind:
            return ppo.policy_loss(kind, kl)
        case kind:
            return algorithms.policy_loss(kind)


def next_kl(settings: Train, kl: float, logp: algorithms.LogProbs) -> float:
    """The KL weight of the next turn; only PPO has a controller."""
    kind = settings.objective
    if not isinstance(kind, Ppo) or kind.adaptive is None:
        return kl
    return ppo.next_kl(kl, ppo.answer_kl(logp), len(logp.length_S), kind.adaptive)
