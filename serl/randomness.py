"""Every random choice is a function of what it is for: never of time, rank count or attempt."""

import hashlib
import random


def seed_of(*parts: str | int) -> int:
    """63 bits that depend on every part, as `seed_of(run_seed, round, "respond", instruction_id)`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_of(*parts: str | int) -> random.Random:
    return random.Random(seed_of(*parts))
