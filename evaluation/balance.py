"""Which shard answers which problem: shards of equal expected work, a function of the problems alone."""

import heapq
from collections.abc import Sequence

CHARS_PER_TOKEN = 3.5
PROMPT_COST = 0.1
"""A prompt token costs about this share of a generated one: prompts are read in parallel."""


def expected_work(num_prompt_chars: int, response_tokens: int, num_responses: int) -> float:
    """Expected tokens to generate for a problem, its prompt included at its own price."""
    return PROMPT_COST * num_prompt_chars / CHARS_PER_TOKEN + response_tokens * num_responses


def shards(work: Sequence[float], count: int) -> list[list[int]]:
    """The positions that each of `count` shards takes, in ascending order: the largest first, always to the
    least loaded shard.
    """
    if count < 1:
        raise ValueError(f"shards: {count} shards; there must be at least one")
    taken: list[list[int]] = [[] for _ in range(count)]
    loads = [(0.0, shard) for shard in range(count)]
    for position in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        load, shard = heapq.heappop(loads)
        taken[shard].append(position)
        heapq.heappush(loads, (load + work[position], shard))
    return [sorted(positions) for positions in taken]
