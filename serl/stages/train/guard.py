"""guard: the look at a round's data that comes before its training. A collapse in the training of one round
shows in the answers of the next, so no policy is ever trained on from one that was seen to have collapsed.
"""

from collections.abc import Sequence

from serl.engines.ranks import Ranks
from serl.records import Group
from serl.run.rundir import Manifest, Run
from serl.safety.checkup import Checkup, accepted, read_checkup, refusal, save_checkup
from serl.safety.turns import TurnFigures
from serl.safety.vitals import Alarm, Vitals, examine, take_vitals
from serl.stages import read
from serl.stages.work import Work


def check(run: Run, round: int, groups: Sequence[Group]) -> Checkup:
    """Judge the round by its groups and those of the rounds before, and record that.

    A round that a person accepted is what the later ones are measured by.
    """
    vitals = _take(run, round, groups)
    since = max((r for r in range(1, round) if accepted(run, r)), default=1)
    earlier = [_vitals_of(run, r) for r in range(since, round) if run.config.judged(r)]
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
    return _take(run, round, read.round_groups(run, round, completions=False))


def _take(run: Run, round: int, groups: Sequence[Group]) -> Vitals:
    training, judged = run.config.training(round), run.config.judged(round)
    assert training is not None and judged is not None, "only what a training learns from is looked at"
    kept, _ = read.trainable(training, judged, groups)
    chosen = run.config.source(judged, "problems")
    curated = _sum(read.left(run, chosen)) if chosen else None
    return take_vitals(round, groups, len(kept), _sum(read.left(run, judged)), curated)


def _inputs(run: Run, round: int) -> dict[str, str]:
    """What vitals are a function of, by digest."""
    judged = run.config.judged(round)
    assert judged is not None, "only what a training learns from is looked at"
    stages = [s for s in (run.config.source(judged, "problems"), judged) if s]
    found = [(s.name, m) for s in stages for m in run.complete(round, s.name)]
    return {f"{name}/{m.shard.index:05d}": m.digest for name, m in found}


def _sum(manifests: Sequence[Manifest]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for m in manifests:
        counts |= {name: counts.get(name, 0.0) + n for name, n in m.counts.items()}
    return counts


def check_turn(work: Work, ranks: Ranks, figures: TurnFigures, alarms: Sequence[Alarm]) -> None:
    """Record a turn's alarms in the round's checkup; raise Unsafe, on every rank, where one ends or holds the
    run.
    """
    unsafe = None
    if ranks.first and alarms:
        for alarm in alarms:
            work.events.add("alarm", rule=alarm.rule, action=alarm.action, sentence=alarm.sentence)
        known = read_checkup(work.run, work.shard.round)
        vitals = known.vitals if known else _vitals_of_turn(work.shard.round, figures)
        before = known.alarms if known else ()
        checkup = Checkup(vitals=vitals, alarms=(*before, *alarms), inputs=known.inputs if known else {})
        save_checkup(work.run, checkup)
        unsafe = refusal(work.run, checkup)
    if unsafe := ranks.from_first(unsafe):
        raise unsafe


def _vitals_of_turn(round: int, figures: TurnFigures) -> Vitals:
    """Of a round that has no answers but those of its turns."""
    return Vitals(
        round=round, leads={}, anchor_agreement=0.0, agreement=figures.agreement, margin=0.0,
        entropy=figures.entropy, monotony=figures.monotony, unparsed=figures.silent, truncated=0.0,
        undecided=0.0, length=figures.length, kept=figures.kept, duplicates=None,
    )  # fmt: skip
