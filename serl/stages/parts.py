"""The loop of every stage that generates: commit part by part, so that a shard that is preempted loses a
part, not the shard.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from serl.engines import generator
from serl.run.attempt import Attempt, Overtaken
from serl.stages.work import Work

T = TypeVar("T")


def in_parts(
    work: Work,
    attempt: Attempt,
    policy: Path,
    items: Sequence[T],
    size: int,
    unit: str,
    compute: Callable[[generator.Generator, Sequence[T]], bytes],
) -> list[bytes]:
    """`compute` on `items`, `size` at a time, in order; parts that an earlier attempt committed are read
    instead.

    The policy is loaded when the first part needs it. Leaves at a part's end when asked to, or when the next
    part would not be done in time.
    """
    engine: generator.Generator | None = None
    parts: list[bytes] = []
    longest_s = 0.0
    held = work.stage.kind.held(work.stage.section, work.run.config)
    for number, start in enumerate(range(0, len(items), size)):
        data = attempt.part(number)
        if data is None:
            if attempt.overtaken():
                raise Overtaken
            work.stop.safe_point(longest_s)
            begun = time.monotonic()
            if engine is None:
                work.phase("load")
                engine = generator.Generator(policy, held, device=work.device)
                work.events.add(
                    "phase", name=f"{work.shard.stage} load", seconds=round(time.monotonic() - begun, 3)
                )
            work.phase(f"part {number}")
            before, mine = engine.sampled, items[start : start + size]
            data = attempt.commit(number, compute(engine, mine))
            longest_s = max(longest_s, time.monotonic() - begun)
            said = {
                "seconds": round(time.monotonic() - begun, 3),
                "items": len(mine),
                "tokens": engine.sampled - before,
            }
            work.events.add("phase", name=f"{work.shard.stage} part {number}", **said)
        parts.append(data)
        work.progress(min(start + size, len(items)), len(items), unit)
    work.phase("publish")
    return parts
