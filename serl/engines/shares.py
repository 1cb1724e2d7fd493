"""Which rank answers which prompts of a turn, and how all ranks come to have all answers.

Ranks form groups of `tensor_parallel` consecutive ones, each with one engine. A group answers a contiguous
share of the prompts: all its ranks call the engine with it, and the first speaks for them. An answer is a
function of its prompt and seed, so that the number of ranks changes rounding only.
"""

from collections.abc import Sequence
from typing import TypeVar

from serl.engines.ranks import Ranks

T = TypeVar("T")


def share_of(num_prompts: int, *, rank: int, size: int, tensor_parallel: int = 1) -> range:
    """The prompts that this rank's engine answers; shares differ by one at most, and may be empty."""
    engines, mine = size // tensor_parallel, rank // tensor_parallel
    assert size == engines * tensor_parallel, f"{size} ranks in groups of {tensor_parallel}: refused at start"
    return range(num_prompts * mine // engines, num_prompts * (mine + 1) // engines)


def gathered(ranks: Ranks, mine: Sequence[T], *, tensor_parallel: int = 1) -> list[T]:
    """What all engines made of their shares, in the order of the prompts, on every rank."""
    speaks = ranks.rank % tensor_parallel == 0
    return [item for part in ranks.gather(list(mine) if speaks else []) for item in part]
