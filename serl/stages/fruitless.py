"""A round that comes to nothing: no question, no group, no step. It is a failure that names what every filter
took, unless its phase has an end of its own (`until`), which such a round may be.
"""

from collections.abc import Iterable, Iterator, Mapping

from serl.run.rundir import RunError
from serl.stages import read
from serl.stages.kind import Stage
from serl.stages.work import Work

Told = tuple[str, Mapping[str, float]]
"""Who filtered, and how many passed or fell to what."""


def may_be_empty(work: Work) -> bool:
    """Whether the round's phase is one that ends by itself."""
    if not work.shard.round:
        return False
    return work.run.config.phase(work.shard.round)[1].until is not None


def check_fruit(work: Work, num: float, what: str, filters: Iterable[Told]) -> None:
    """Raises RunError where there are no such things at all and the round may not be empty."""
    if num or may_be_empty(work):
        return
    taken = "; ".join(f"{name}: {_counted(counts)}" for name, counts in filters)
    raise RunError(
        f"{work.shard}: no {what}, so that the round would teach nothing ({taken}). Mend what took them "
        "(prompts, quality rules, lengths, the band of agreement), or give the phase `until: idle` where "
        "that is to be its end"
    )


def told_by(work: Work, *stages: Stage | None) -> Iterator[Told]:
    """What stages counted, all shards together; read when it is asked for."""
    for stage in filter(None, stages):
        total: dict[str, float] = {}
        for manifest in read.left(work.run, stage):
            total |= {name: total.get(name, 0.0) + n for name, n in manifest.counts.items()}
        yield stage.name, total


def _counted(counts: Mapping[str, float]) -> str:
    shown = [f"{name.replace('_', ' ')} {n:g}" for name, n in counts.items() if n]
    return ", ".join(shown) or "nothing came"
