"""What a run measured, for `jobs.costs.calibration` to keep: what its published shards took, and how often a
node was taken away from it. Read from manifests and events.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from jobs.chain.queue import Journal
from jobs.costs.accounting import account
from jobs.costs.sacct import split_attempt
from jobs.costs.told import Piece, Told, told_by
from jobs.costs.tries import Try
from jobs.plan.chain import after_of
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.stages.cost import cost_of
from serl.stages.kind import Stage

TAKEN = ("preempted", "node failure", "killed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published shard. `pieces` are (size, seconds) of its parts, or of its mean step; `yields` what came
    of it.
    """

    run: str
    stage: str
    round: int
    index: int
    wait_s: float | None = None  # from the end of what it waited for; None where it waited for nothing
    boot_s: float = 0.0
    start_s: float = 0.0  # without what a training does for every token before its first step: a yield
    end_s: float = 0.0
    save_s: float = 0.0
    pieces: tuple[tuple[float, float], ...] = ()
    yields: Mapping[str, float] = field(default_factory=dict)
    files: int = 0
    base: bool = False  # the training of a base model, which is another thing than that of a round


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How often nodes were taken in how many seconds of nodes, and the median time until a job ran again."""

    run: str
    taken: int
    node_s: float
    away_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """A published shard: by whom, when its first attempt was there, and the parts of all attempts."""

    stage: Stage
    manifest: Manifest
    winner: Told
    first: float
    parts: Sequence[Piece]


def rows(run: Run) -> list[Row]:
    """One for each shard that this run has published itself, and told of."""
    told = told_by(run)
    found = []
    for stage in run.config.stages:
        for shard in run.shards(stage.round, stage.name):
            attempts = told.get((stage.round, stage.name, shard.index), ())
            if published := _shard(run, stage, shard, attempts):
                found.append(published)
    waits = _waits(run, found)
    return [_row(run, s, waits.get(s.stage.job)) for s in found]


def _shard(run: Run, stage: Stage, shard: Shard, attempts: Sequence[Told]) -> _Shard | None:
    try:
        manifest = run.manifest(shard)
    except RunError:  # a damaged shard teaches nothing; the report says so
        return None
    begun = {t.id: t for t in attempts if t.first["kind"] == "start"}
    if manifest is None or manifest.attempt not in begun:
        return None
    parts = {p.number: p for t in begun.values() for p in t.parts}
    first = min(t.begin for t in begun.values())
    return _Shard(
        stage=stage, manifest=manifest, winner=begun[manifest.attempt], first=first, parts=[*parts.values()]
    )


def _waits(run: Run, shards: Sequence[_Shard]) -> dict[str, float]:
    """By job, from the end of what it waits for to its first process; here, from when something made room, if
    later.
    """
    ends, firsts = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for s in shards:
        ends[s.stage.job].append(s.manifest.created)
        firsts[s.stage.job].append(s.first)
    rooms = [] if Journal(run.root) else [s.manifest.created for s in shards]
    waits = {}
    for stage in {s.stage.job: s.stage for s in shards}.values():
        before, first = after_of(run.config, stage.round, stage.name), min(firsts[stage.job])
        if before and all(name in ends for name in before):
            ready = max(max(ends[name]) for name in before)
            room = max((end for end in rooms if ready < end <= first), default=ready)
            waits[stage.job] = max(0.0, first - room)
    return waits


def _row(run: Run, s: _Shard, wait_s: float | None) -> Row:
    stage, told, first, files = s.stage, s.winner, s.winner.first, s.manifest.files
    begin = first["time"]
    end = next((e["time"] for e in told.events if e["kind"] == "done"), s.manifest.created)
    work, save_s = told.parts, 0.0
    pieces = [(p.tokens, round(p.seconds, 3)) for p in work]
    if stage.kind.ranks:
        work = told.steps if len(told.steps) > 1 else []
        pieces, save_s = _mean_step(stage, work[1:], told.ranks)
    elif not stage.kind.array:
        work = [Piece(number=0, begin=begin, end=end)]
        pieces = [(cost_of(stage.kind).size(s.manifest.counts), end - begin)]
    before_s = next((e["seconds"] for e in told.phases if e["name"] == "log-probabilities"), 0.0)
    work_begin, work_end = (work[0].begin, work[-1].end) if work else (end, end)
    return Row(
        run=run.root.name, stage=stage.listed, round=stage.round, index=s.manifest.shard.index,
        base=bool(stage.role) and not stage.round, wait_s=wait_s,
        boot_s=first.get("boot_s", 0.0), start_s=round(max(0.0, work_begin - begin - before_s), 3),
        end_s=round(max(0.0, end - work_end), 3), save_s=round(save_s, 4), pieces=tuple(pieces),
        yields=_yields(s) | _before_steps(s, pieces, before_s),
        files=len(files) + 1,
    )  # fmt: skip


def _yields(s: _Shard) -> dict[str, float]:
    """Counts whose ratios the next plan needs."""
    items, tokens = float(sum(p.items for p in s.parts)), sum(p.tokens for p in s.parts)
    found = cost_of(s.stage.kind).yields(s.stage, s.manifest.counts, items, tokens)
    return found | {"bytes": float(sum(f.bytes for f in s.manifest.files))} if found else {}


def _before_steps(s: _Shard, pieces: Sequence[tuple[float, float]], seconds: float) -> dict[str, float]:
    """What a training did for every token before its first step, and how many there were."""
    samples, steps = (s.manifest.counts.get(name, 0.0) for name in ("samples", "steps"))
    if not (seconds and samples and steps and pieces):
        return {}
    in_step = min(s.stage.section.batch_samples, samples * s.stage.section.epochs / steps)
    return {"logp_s": seconds, "tokens": samples * pieces[0][0] * s.winner.ranks / in_step}


def _mean_step(
    stage: Stage, steps: Sequence[Piece], ranks: int
) -> tuple[list[tuple[float, float]], float]:
    """Tokens of one rank in the mean step and its seconds; and those of a save, where it is seen: where steps
    are uneven they are taken with all that lies between.
    """
    if not steps:
        return [], 0.0
    reckon = cost_of(stage.kind)
    every = reckon.keeps_every(stage.section)
    saving = [p.seconds for p in steps if reckon.even(stage.section) and (p.number - 1) % every == 0]
    plain = [p for p in steps if not reckon.even(stage.section) or (p.number - 1) % every] or steps
    tokens = statistics.fmean([p.tokens for p in plain if p.tokens] or [0.0]) / ranks
    save_s = statistics.median(saving) - statistics.median(p.seconds for p in plain) if saving else 0.0
    step = (float(f"{x:.6g}") for x in (tokens, statistics.fmean(p.seconds for p in plain)))
    return [tuple(step)], max(0.0, save_s)


def seen_by(run: Run) -> list[Seen]:
    """Nothing by a run that Slurm has had no part in: nobody takes its machine away.

    Counted are attempts that were preempted, lost their node or died without a word, and whose job Slurm
    started again: who cancels a job, or resumes a run, starts another one.
    """
    if not Journal(run.root):
        return []
    jobs: dict[tuple, list[Try]] = defaultdict(list)
    tries = sorted(account(run).tries, key=lambda t: t.begin)
    for t in tries:
        jobs[t.round, t.stage, t.index, split_attempt(t.id)[0]].append(t)
    pairs = (pair for several in jobs.values() for pair in pairwise(several))
    away = [max(0.0, b.begin - a.end) for a, b in pairs if a.ended in TAKEN]
    node_s = round(sum(t.seconds * t.nodes for t in tries), 1)
    median = round(statistics.median(away), 1) if away else None
    return [Seen(run=run.root.name, taken=len(away), node_s=node_s, away_s=median)]
