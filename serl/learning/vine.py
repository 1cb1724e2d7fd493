"""VinePPO (arXiv 2410.01679): what each token earned, from the values of the states between an answer's
steps.

Shapes as in `advantage`: S sequences, T response tokens of all of them end to end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from serl.config.objectives import Correction, Mean, Vine
from serl.learning.advantage import whiten
from serl.learning.algorithms import LogProbs, token_columns
from serl.learning.objective import PolicyLoss
from serl.records import Walk


def step_advantages(walks: Sequence[Walk], reward_S: Tensor, length_S: Tensor) -> Tensor:
    """At each token of a step, how much the step added: V(next state) - V(its own) (eq. 6).

    The state behind the last step is worth the answer's reward. In float64.
    """
    parts = []
    for walk, reward, length in zip(walks, reward_S.tolist(), length_S.tolist(), strict=True):
        value = torch.tensor([*walk.values, reward], dtype=torch.float64)
        tokens = torch.tensor([*walk.cuts, length]).diff()
        parts.append(torch.repeat_interleave(value.diff(), tokens))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def columns(
    kind: Vine,
    walks: Sequence[Walk],
    reward_S: Tensor,
    logp: LogProbs,
    mean: Mean,
    correction: Correction | None,
) -> dict[str, Tensor]:
    """Everything that `policy_loss` reads, for all response tokens of the turn."""
    advantage_T = step_advantages(walks, reward_S, logp.length_S)
    if kind.whiten:
        advantage_T = whiten(advantage_T)
    return token_columns(advantage_T.to(logp.old_T.dtype), logp, mean, correction)


def policy_loss(kind: Vine) -> PolicyLoss:
    """Its KL is here, as k3."""
    clips = {"clip": kind.clip, "clip_high": kind.clip_high, "dual_clip": kind.dual_clip}
    return PolicyLoss(**clips, entropy=kind.entropy, kl=kind.kl)
