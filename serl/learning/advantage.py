"""How much better than expected each token was: an estimator is one small function of tensors.

Shapes: G groups, N answers to one prompt, S = G*N sequences in that order, T response tokens of all sequences
end to end (no padding; `length_S` says where one sequence stops and the next begins). Accumulation is in
float64, so that results do not depend on token order.
"""

import torch
from torch import Tensor


def group_relative(reward_GN: Tensor) -> Tensor:
    """Rewards standardised within their group (GRPO, arXiv 2402.03300).

    (R - mean) / (sample deviation + 1e-9). A unanimous group gives exact zeros: it teaches nothing.
    """
    centred_GN = reward_GN - reward_GN.mean(dim=1, keepdim=True)
    return centred_GN / (reward_GN.std(dim=1, keepdim=True) + 1e-9)


def leave_one_out(reward_GN: Tensor) -> Tensor:
    """r_i minus the mean of the other N-1 (RLOO, arXiv 2402.14740). Equals centred * N / (N - 1)."""
    n = reward_GN.shape[1]
    return (reward_GN * n - reward_GN.sum(dim=1, keepdim=True)) / (n - 1)


def centred(reward_GN: Tensor) -> Tensor:
    """r_i minus the group's mean (Dr. GRPO, arXiv 2503.20783).

    Not divided by the deviation, which would make the easiest and the hardest prompts loudest.
    """
    return reward_GN - reward_GN.mean(dim=1, keepdim=True)


def mean_normalised(reward_GN: Tensor) -> Tensor:
    """(r_i - mean) / mean within the group (MaxRL, arXiv 2602.02710).

    For rewards of 0 or 1 it follows the gradient of log(mean reward), the likelihood of a right answer.
    A group where no answer is right gives zeros.
    """
    if (reward_GN < 0).any():
        raise ValueError(
            "max_rl: a reward below 0 has no logarithm; use rewards from 0 up, or another objective"
        )
    mean_G1 = reward_GN.mean(dim=1, keepdim=True)
    return (reward_GN - mean_G1) / mean_G1.clamp(min=1e-6)


def overlong_penalty(length_S: Tensor, longest: int, buffer: int, penalty: float) -> Tensor:
    """What an answer's length adds to its reward (DAPO, arXiv 2503.14476, eq. 13).

    0 up to longest - buffer tokens, -penalty at `longest`, linear between.
    """
    over_S = (length_S - (longest - buffer)).clamp(min=0, max=buffer)
    return -penalty * over_S / buffer


def spread(value_S: Tensor, length_S: Tensor) -> Tensor:
    """Each sequence's value at each of its tokens."""
    return torch.repeat_interleave(value_S, length_S)


def sequence_sums(value_T: Tensor, length_S: Tensor) -> Tensor:
    """The sum over each sequence's tokens; differentiable, and the same whatever the other sequences are."""
    parts = value_T.split(length_S.tolist()) if len(length_S) else ()
    return torch.stack([part.sum() for part in parts]) if parts else value_T[:0]


def reward_to_go(
    reward_S: Tensor,
    logp_T: Tensor,
    ref_logp_T: Tensor,
    length_S: Tensor,
    kl: float,
    reward_limit: float = 10.0,
) -> Tensor:
    """Undiscounted return from each token on, sum over s >= t of r_s, with the KL penalty inside the reward.

    r_t = -kl * (log p - log p_ref)_t, the k1 estimate, and the last token also earns the sequence's reward
    clipped to +-reward_limit.
    """
    penalty_T = kl * (logp_T.double() - ref_logp_T.double())
    up_to_T = penalty_T.cumsum(dim=0)
    end_S = length_S.cumsum(dim=0) - 1
    ahead_T = spread(up_to_T[end_S], length_S) - up_to_T + penalty_T
    return (spread(reward_S.double().clamp(-reward_limit, reward_limit), length_S) - ahead_T).to(logp_T.dtype)


def whiten(value_T: Tensor) -> Tensor:
    """Zero mean and unit variance over every token given (REINFORCE++, arXiv 2501.03262).

    Population moments, the variance not below 1e-8.
    """
    centred_T = value_T.double() - value_T.double().mean()
    return (centred_T * centred_T.square().mean().clamp(min=1e-8).rsqrt()).to(value_T.dtype)
