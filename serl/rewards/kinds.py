"""What an answer earns: a closed union over the reward kinds of the configuration."""

import random
from collections.abc import Sequence
from typing import assert_never

from serl.rewards.spec import Majority, RandomReward, Verified


def rewards(
    reward: Majority | Verified | RandomReward,
    *,
    labels: Sequence[int | None],
    winner: int | None,
    correct: Sequence[bool | None],
    rng: random.Random,
) -> tuple[float, ...]:
    """One number per answer. `correct[i]` says whether answer i equals the gold answer (None: no gold, no answer, or undecided)."""
    match reward:
        case Majority():
            return tuple(float(winner is not None and label == winner) for label in labels)
        case Verified():
            return tuple(float(bool(c)) for c in correct)
        case RandomReward():
            return tuple(float(rng.random() < 0.5) for _ in labels)
        case _:
            assert_never(reward)
