"""The loop of every stage that asks a model: commit part by part, so that a shard that is preempted loses a
part, not the shard.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from serl.engines import generator
from serl.run.attempt import Attempt, Helped, Overtaken
from serl.stages.work import Work


class Engine(Protocol):
    """A model that counts the tokens it has sampled, or read, so far."""

    sampled: int


T = TypeVar("T")
E = TypeVar("E", bound=Engine)
LOOK_S = 0.5


def sampling_from(work: Work, policy: Path) -> Callable[[], generator.Generator]:
    """What loads a policy into vLLM, as the stage holds it."""
    return lambda: generator.Generator(policy, work.held, device=work.device)


def in_parts(
    work: Work,
    attempt: Attempt,
    load: Callable[[], E],
    items: Sequence[T],
    size: int,
    unit: str,
    compute: Callable[[E, Sequence[T]], bytes],
) -> list[bytes]:
    """`compute` on `items`, `size` at a time, in order; parts that an earlier attempt committed are read
    instead.

    The model is loaded when the first part needs it. Leaves at a part's end when asked to, or when the next
    part would not be done in time. Of several processes of one job each does a stretch of the parts; the
    first then waits for those of the others, which leave with `Helped`.
    """
    engine: E | None = None
    parts: dict[int, bytes] = {}
    longest_s = 0.0
    starts = range(0, len(items), size)
    for number in stretch(len(starts), work.rank, work.ranks):
        data = attempt.part(number)
        if data is None:
            if attempt.overtaken():
                raise Overtaken
            work.stop.safe_point(longest_s)
            begun = time.monotonic()
            if engine is None:
                work.phase("load")
                engine = load()
                work.events.add(
                    "phase", name=f"{work.shard.stage} load", seconds=round(time.monotonic() - begun, 3)
                )
            work.phase(f"part {number}")
            before, mine = engine.sampled, items[starts[number] : starts[number] + size]
            data = attempt.commit(number, compute(engine, mine))
            longest_s = max(longest_s, time.monotonic() - begun)
            said = {
                "seconds": round(time.monotonic() - begun, 3),
                "items": len(mine),
                "tokens": engine.sampled - before,
            }
            work.events.add("phase", name=f"{work.shard.stage} part {number}", **said)
        parts[number] = data
        there = attempt.num_parts() if work.ranks > 1 else len(parts)
        work.progress(min(there * size, len(items)), len(items), unit)
    if work.rank:
        raise Helped
    for number in range(len(parts), len(starts)):
        work.phase(f"part {number}")
        parts[number] = _awaited(work, attempt, number)
        work.progress(min(attempt.num_parts() * size, len(items)), len(items), unit)
    work.phase("publish")
    return [parts[number] for number in range(len(starts))]


def stretch(num_parts: int, rank: int, ranks: int) -> range:
    """The parts of one process: neighbours, for their prompts are alike."""
    return range(num_parts * rank // ranks, num_parts * (rank + 1) // ranks)


def _awaited(work: Work, attempt: Attempt, number: int) -> bytes:
    """A part that another process of this job is at work on; were that to die, its job would end with it."""
    while (data := attempt.part(number)) is None:
        if attempt.overtaken():
            raise Overtaken
        work.stop.safe_point()
        time.sleep(LOOK_S)
    return data
