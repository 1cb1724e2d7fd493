"""guard: the look at a round's data that comes before its training. A collapse in the training of one round shows in the answers of the next, so
no policy is ever trained on from one that was seen to have collapsed.
"""

from collections.abc import Sequence

from serl.records import Group
from serl.run.rundir import Manifest, Run
from serl.safety.checkup import Checkup, accepted, read_checkup, save_checkup
from serl.safety.vitals import Vitals, examine, take_vitals
from serl.stages.respond.run import round_groups, trainable


def check(run: Run, round: int, groups: Sequence[Group]) -> Checkup:
    """Judge the round by its groups and those of the rounds before, and record that.

    A round that a person accepted is what the later ones are measured by.
    """
    vitals = _take(run, round, groups)
    since = max((r for r in range(1, round) if accepted(run, r)), default=1)
    earlier = [_vitals_of(run, r) for r in range(since, round)]
    checkup = Checkup(
        vitals=vitals, alarms=examine(vitals, earlier, run.config.safety), inputs=_inputs(run, round)
    )
    save_checkup(run, checkup)
    return checkup


def _vitals_of(run: Run, round: int) -> Vitals:
    """As recorded, if that is of the data that stands there; else from the groups."""
    known = read_checkup(run, round)
    if known and known.inputs == _inputs(run, round):
        return known.vitals
    return _take(run, round, round_groups(run, round, completions=False))


def _take(run: Run, round: int, groups: Sequence[Group]) -> Vitals:
    kept, _ = trainable(run, groups)
    curated = _sum(run.complete(round, "curate")) if run.config.curate else None
    return take_vitals(round, groups, len(kept), _sum(run.complete(round, "respond")), curated)


def _inputs(run: Run, round: int) -> dict[str, str]:
    """What vitals are a function of, by digest."""
    stages = ("curate", "respond") if run.config.curate else ("respond",)
    return {f"{stage}/{m.shard.index:05d}": m.digest for stage in stages for m in run.complete(round, stage)}


def _sum(manifests: Sequence[Manifest]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for m in manifests:
        counts |= {name: counts.get(name, 0.0) + n for name, n in m.counts.items()}
    return counts
