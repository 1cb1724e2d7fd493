"""What an answer earns by a reward model's scores."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import assert_never

from serl.rewards.spec import ModelReward


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def model_rewards(reward: ModelReward, scores: Sequence[float]) -> tuple[float, ...]:
    """One number between 0 and 1 for each of a question's answers."""
    match reward.of:
        case "answer":
            return tuple(map(sigmoid, scores))
        case "pair":
            return tuple(_wins(scores, i) for i in range(len(scores)))
        case _:
            assert_never(reward.of)


def _wins(scores: Sequence[float], i: int) -> float:
    """How probably answer i is better than another one; a half where there is no other."""
    others = [sigmoid(scores[i] - score) for j, score in enumerate(scores) if j != i]
    return fmean(others) if others else 0.5
