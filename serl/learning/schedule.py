"""The learning rate as a function of the step, never of history; past the horizon it stays at its floor."""

import math
from typing import assert_never

from serl.config.training import Optimizer


def learning_rate(step: int, horizon: int, settings: Optimizer) -> float:
    """The rate of optimizer step `step` (from 0) of `horizon`: linear warm-up whose first step is not zero,
    then the schedule's shape.
    """
    warmup = math.ceil(settings.warmup * horizon)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    floor = settings.min_lr_ratio
    match settings.schedule:
        case "constant":
            return settings.lr
        case "cosine":
            done = min(1.0, (step - warmup) / max(1, horizon - warmup))
            return settings.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
        case "wsd":
            fall = max(1, math.ceil(settings.decay * horizon))
            left = min(1.0, max(0.0, (horizon - step) / fall))
            return settings.lr * (floor + (1 - floor) * left)
        case _:
            assert_never(settings.schedule)
