"""PPO with a critic: what each token earned and was worth, the critic's loss, and a KL weight with a target.

V(s_t) is the critic's value of the state *before* token t, read where the policy's log-probability of token t
is read; past the last token it is 0. Old log-probabilities and old values are of the round's first weights
and computed once. Shapes as in `advantage`: S sequences, T response tokens of all of them end to end.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from serl.config.objectives import AdaptiveKl, Correction, Mean, Ppo
from serl.learning.advantage import sequence_sums, whiten
from serl.learning.algorithms import LogProbs, token_columns
from serl.learning.objective import Columns, KlEstimate, PolicyLoss, divergence


def at_the_end(reward_S: Tensor, length_S: Tensor) -> Tensor:
    """Rewards of whole answers as rewards of tokens: each at its sequence's last one."""
    reward_T = torch.zeros(int(length_S.sum()), dtype=reward_S.dtype)
    reward_T[length_S.cumsum(dim=0) - 1] = reward_S
    return reward_T


def penalised(reward_T: Tensor, logp: LogProbs, kl: float, estimate: KlEstimate) -> Tensor:
    """Token rewards less `kl` times the token's distance to the reference (arXiv 1909.08593, section 2)."""
    return reward_T - kl * divergence(logp.old_T, logp.ref_T, estimate)


def gae(reward_T: Tensor, value_T: Tensor, length_S: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantages (arXiv 1506.02438, eq. 16) of ragged sequences, none bootstrapped past its end.

    A_t = d_t + gamma lam A_{t+1} with d_t = r_t + gamma V_{t+1} - V_t. In float64, all sequences together,
    one step back from their ends at a time.
    """
    end_S = length_S.cumsum(dim=0) - 1
    value_T = value_T.double()
    advantage_T = reward_T.double() - value_T
    for back in range(1, int(length_S.max()) if len(length_S) else 0):
        at = end_S[length_S > back] - back
        advantage_T[at] += gamma * value_T[at + 1] + gamma * lam * advantage_T[at + 1]
    return advantage_T.to(reward_T.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What actor and critic learn from: advantages, and the returns A_t + V_t that values are drawn to."""

    advantage_T: Tensor
    return_T: Tensor


def credit(kind: Ppo, reward_T: Tensor, logp: LogProbs, value_T: Tensor, kl: float) -> Credit:
    """The round's advantages and returns under the KL weight of now.

    Only advantages are whitened, over all tokens of the round: returns stay in units of reward.
    """
    if kind.kl_in == "reward":
        reward_T = penalised(reward_T, logp, kl, kind.kl_estimate)
    advantage_T = gae(reward_T, value_T, logp.length_S, kind.gamma, kind.lam)
    return Credit(
        advantage_T=whiten(advantage_T) if kind.whiten else advantage_T, return_T=advantage_T + value_T
    )


def columns(
    made: Credit, value_T: Tensor, logp: LogProbs, mean: Mean, correction: Correction | None
) -> dict[str, Tensor]:
    """Everything that `policy_loss` and `ValueLoss` read, for all response tokens of the round."""
    actor = token_columns(made.advantage_T, logp, mean, correction)
    return actor | {"old_value": value_T, "return": made.return_T}


def policy_loss(kind: Ppo, kl: float) -> PolicyLoss:
    """The actor's loss under the KL weight of now."""
    return PolicyLoss(
        clip=kind.clip,
        clip_high=kind.clip_high,
        dual_clip=kind.dual_clip,
        entropy=kind.entropy,
        kl=kl if kind.kl_in == "loss" else 0.0,
        kl_estimate=kind.kl_estimate,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueLoss:
    """Half the squared error of the critic's values, the worse of the free and the held one.

    The held value is the new one, kept within `clip` of the old one (OpenAI baselines, ppo2): a value that
    has moved `clip` towards its return is not drawn further, one that has moved away is drawn back. Called
    like a policy's loss, with values in the place of log-probabilities. Columns: weight, return; old_value if
    `clip`.
    """

    clip: float | None

    def __call__(self, value_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        free_T = (value_T - column["return"]).square()
        error_T = free_T
        if self.clip is not None:
            moved_T = (value_T - column["old_value"]).clamp(-self.clip, self.clip)
            held_T = (column["old_value"] + moved_T - column["return"]).square()
            error_T = torch.maximum(free_T, held_T)
        sums = {
            "value": value_T.detach().sum(),
            "value_error": free_T.detach().sum(),
            "value_clip_fraction": (error_T > free_T).sum(),
        }
        return (column["weight"] * error_T).sum() / 2, sums


def answer_kl(logp: LogProbs) -> float:
    """Distance to the reference in nats per answer, which the controller steers by: mean of summed k1."""
    distance_T = logp.old_T.double() - logp.ref_T.double()
    return sequence_sums(distance_T, logp.length_S).mean().item()


def next_kl(kl: float, measured: float, num_answers: int, settings: AdaptiveKl) -> float:
    """The KL weight after `num_answers` answers at distance `measured` (arXiv 1909.08593, section 2.2).

    Multiplied by 1 + e n / horizon, the relative error e held within +-0.2.
    """
    error = min(max(measured / settings.target - 1.0, -0.2), 0.2)
    return kl * (1.0 + error * num_answers / settings.horizon)
