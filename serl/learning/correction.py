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
    """w = p_trainer / p_sampler of each token or of its sequence, within the settings' bounds."""
    ratio_T = _ratios(settings, old_logp_T, behaviour_logp_T, length_S)
    low, high = settings.bounds
    match settings.mode:
        case "truncate":
            return ratio_T.clamp(low, high)
        case "mask":
            return torch.where(_within(settings, ratio_T), ratio_T, 0.0)
        case "none":
            return torch.ones_like(ratio_T)
        case _:
            assert_never(settings.mode)


def correction_figures(
    settings: Correction, old_logp_T: Tensor, behaviour_logp_T: Tensor, length_S: Tensor
) -> dict[str, float]:
    """What the correction does, over all tokens: its mean weight, and the share that is out of bounds."""
    weight_T = correction_weights(settings, old_logp_T, behaviour_logp_T, length_S)
    inside_T = _within(settings, _ratios(settings, old_logp_T, behaviour_logp_T, length_S))
    return {
        "correction_mean": weight_T.mean().item(),
        "correction_outside": (~inside_T).float().mean().item(),
    }


def _within(settings: Correction, ratio_T: Tensor) -> Tensor:
    low, high = settings.bounds
    return (ratio_T >= low) & (ratio_T <= high)


def _ratios(settings: Correction, old_logp_T: Tensor, behaviour_logp_T: Tensor, length_S: Tensor) -> Tensor:
    """Unbounded. The geometric level is the mean over a sequence's tokens, in logarithms: unlike the product,
    it does not grow with length.
    """
    gap_T = old_logp_T - behaviour_logp_T
    match settings.level:
        case "token":
            return gap_T.exp()
        case "sequence":
            return spread(sequence_sums(gap_T, length_S).exp(), length_S)
        case "geometric":
            return spread((sequence_sums(gap_T, length_S) / length_S).exp(), length_S)
        case _:
            assert_never(settings.level)
