"""What some families do to the output layer's logits before they are probabilities: Granite and Cohere
rescale them, Gemma 2 caps them softly. The engine does so by itself; the trainer's head has it from here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FACTORS = ("logit_scale", "lm_head_multiplier")
DIVISORS = ("logits_scaling",)
CAP = "final_logit_softcapping"
CAPPED_SCORES = "attn_logit_softcapping"  # within attention, which only some kernels do


@dataclass(frozen=True, slots=True, kw_only=True)
class Bend:
    """logits = cap * tanh(scale * raw / cap); without a cap, scale * raw."""

    scale: float = 1.0
    cap: float | None = None

    def bend_(self, logit_CV: Tensor) -> None:
        """In place, from what the output layer gives to a capped model's logits."""
        if self.cap is not None:
            bent_CV = torch.tanh(logit_CV.float() * (self.scale / self.cap)) * self.cap
            logit_CV.copy_(bent_CV)

    def slope(self, logit_CV: Tensor) -> Tensor:
        """How much capped logits change with the raw ones; where there is no cap the temperature has it."""
        assert self.cap is not None, "a scale alone is part of the temperature"
        return (1.0 - (logit_CV.float() / self.cap).square()) * self.scale

    def temperature(self, temperature: float) -> float:
        """By which the logits of `bend_` are divided."""
        return temperature if self.cap is not None else temperature / self.scale


def bend_of(config: Mapping[str, object]) -> Bend:
    """What a model's configuration says of its logits."""
    scale = math.prod(_number(config, key) for key in FACTORS)
    scale /= math.prod(_number(config, key) for key in DIVISORS)
    cap = config.get(CAP)
    return Bend(scale=scale, cap=float(cap) if isinstance(cap, int | float) else None)


def _number(config: Mapping[str, object], key: str) -> float:
    value = config.get(key)
    return float(value) if isinstance(value, int | float) and value else 1.0
