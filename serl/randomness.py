"""Every random choice is a function of what it is for: never of time, rank count or attempt."""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def seed_of(*parts: str | int) -> int:
    """63 bits that depend on every part, as `seed_of(run_seed, round, "respond", instruction_id)`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_of(*parts: str | int) -> random.Random:
    return random.Random(seed_of(*parts))


def part_of(items: Sequence[T], shares: tuple[float, float], seed: int) -> list[T]:
    """Those that lie between two shares of a seeded order of all, in their own order."""
    order = rng_of(seed, "questions").sample(range(len(items)), len(items))
    low, high = (round(len(items) * share) for share in shares)
    return [items[i] for i in sorted(order[low:high])]
