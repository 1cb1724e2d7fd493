"""Tokens were drawn by an engine whose numerics are not the trainer's: what each of them weighs for that.

The weight multiplies the advantage and is no part of what the loss is divided by: a masked token teaches
nothing, and does not make its neighbours louder. Shapes as in `advantage`.
"""

from typing import assert_never

import torch
from torch import Tensor

from serl.config.objectives import Correction
from serl.learning.advantage import sequence_sums, spread


def correction_weights(
    settings: Correction, old_logp_T: Tensor, behaviour_logp_T: Tensor, length_S: Tensor
) -> Tensor:
    """w = p_trainer / p_sampler of each token or of its sequence, within the settings' bounds.

    The geometric level is the mean over a sequence's tokens, in logarithms: unlike the product, it does not
    grow with length.
    """
    gap_T = old_logp_T - behaviour_logp_T
    low, high = settings.bounds
    match settings.level:
        case "token":
            ratio_T = gap_T.exp()
        case "sequence":
            ratio_T = spread(sequence_sums(gap_T, length_S).exp(), length_S)
        case "geometric":
            ratio_T = spread((sequence_sums(gap_T, length_S) / length_S).exp(), length_S)
        case _:
            assert_never(settings.level)
    match settings.action:
        case "truncate":
            return ratio_T.clamp(low, high)
        case "mask":
            return torch.where((ratio_T >= low) & (ratio_T <= high), ratio_T, 0.0)
        case _:
            assert_never(settings.action)


def weight_summary(weight_T: Tensor) -> dict[str, float]:
    """What the correction did, over all tokens: its mean weight, and the share of tokens that it silenced."""
    return {
        "correction_mean": weight_T.mean().item(),
        "correction_masked": (weight_T == 0).float().mean().item(),
    }
