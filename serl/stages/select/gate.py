"""SER's gate: whether a reward model has something left to teach itself, and the pairs that it does so with.

Pure functions of scores; what a pair's order was before is not looked at, but to audit the model's own.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from serl.records import Pair
from serl.rewards.preferred import sigmoid
from serl.stages.select.spec import Gate

Status = Literal["tells_apart", "ranks", "settled"]
Sides = tuple[float, float]


def gated(
    pool: Sequence[Pair], scores: Sequence[Sequence[float]], gate: Gate, says: str, rng: random.Random
) -> tuple[list[Pair], Counter[str]]:
    """The pairs that are taken from the pool, as the model orders them, and figures of that."""
    sides = [probabilities(a, b, gate) for a, b in scores]
    now, sure = status(sides, gate)
    chosen = sorted(rng.sample(range(len(pool)), len(sure))) if gate.random else sure
    taken = [ordered(pool[i], scores[i], says) for i in chosen]
    told = [p.right for p in taken if p.right is not None]
    counts: Counter[str] = Counter(pool=len(pool), new=len(taken), new_audited=len(told), new_right=sum(told))
    counts[now] = 1
    return taken, counts


def probabilities(first: float, second: float, gate: Gate) -> Sides:
    """How good the model says both answers are, between 0 and 1."""
    if gate.of == "answer":
        return sigmoid(first), sigmoid(second)
    return sigmoid(first - second), sigmoid(second - first)


def status(sides: Sequence[Sides], gate: Gate) -> tuple[Status, list[int]]:
    """What the model can do with enough pairs of the pool, and which these are."""
    apart = [i for i, (p, q) in enumerate(sides) if max(p, q) > gate.high and min(p, q) < gate.low]
    if len(apart) >= gate.enough:
        return "tells_apart", apart
    ranked = [i for i, (p, q) in enumerate(sides) if abs(p - q) > gate.gap]
    return ("ranks", ranked) if len(ranked) >= gate.enough else ("settled", [])


def ordered(pair: Pair, scores: Sequence[float], says: str) -> Pair:
    """The pair with the answer first that has the higher score; equal ones stay as they are."""
    first, second = scores
    kept = replace(pair, says=says, label=1.0, margin=0.0)
    if first >= second:
        return kept
    right = None if pair.right is None else not pair.right
    return replace(kept, completions=pair.completions[::-1], right=right)
