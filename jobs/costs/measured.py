"""What a run measured, for `jobs.costs.calibration` to keep: what its published shards took, and how often a
node was taken away from it. Read from manifests and events.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from jobs.chain.queue import Journal
from jobs.costs.accounting import account
from jobs.costs.sacct import split_attempt
from jobs.costs.told import Part, Told, told_by
from jobs.costs.tries import Try
from jobs.plan.chain import after_of
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.stages.cost import cost_of
from serl.stages.kind import Stage

TAKEN = ("preempted", "node failure", "killed")
Pieces = tuple[tuple[float, float], ...]
Work = tuple[float | None, float | None, float, Pieces]  # begin, end, seconds of a save, and pieces
NO_WORK: Work = (None, None, 0.0, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published shard. `pieces` are (size, seconds) of its parts, or of its mean step; `yields` what came
    of it.
    """

    run: str
    stage: str
    round: int
    index: int
    ranks: int = 1
    wait_s: float | None = None  # from the end of what it waited for; None where it waited for nothing
    boot_s: float = 0.0
    start_s: float = 0.0  # without what a training does for every token before its first step: a yield
    end_s: float = 0.0
    save_s: float = 0.0
    pieces: Pieces = ()
    yields: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    files: int = 0
    base: bool = False  # the training of a base model, which is another thing than that of a round


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """A published shard: by whom, when its first attempt was there, and the parts of all attempts."""

    manifest: Manifest
    winner: Told
    first: float
    parts: Sequence[Part]


def rows(run: Run) -> Iterator[Row]:
    """One for each shard that this run has published itself, and told of."""
    told, found = told_by(run), {}
    for stage in run.config.stages:
        shards = (
            _shard(run, shard, told.get((stage.round, stage.name, shard.index), ()))
            for shard in run.shards(stage.round, stage.name)
        )
        if mine := [s for s in shards if s]:
            found[stage.job] = (stage, mine)
    waits = _waits(run, found)
    for job, (stage, shards) in found.items():
        yield from (_row(run, stage, s, waits.get(job)) for s in shards)


def _shard(run: Run, shard: Shard, attempts: Sequence[Told]) -> _Shard | None:
    try:
        manifest = run.manifest(shard)
    except RunError:  # a damaged shard teaches nothing; the report says so
        return None
    begun = {t.id: t for t in attempts if t.first["kind"] == "start"}
    if manifest is None or manifest.attempt not in begun:
        return None
    parts = {p.name: p for t in begun.values() for p in t.parts()}
    first = min(t.begin for t in begun.values())
    return _Shard(manifest=manifest, winner=begun[manifest.attempt], first=first, parts=tuple(parts.values()))


def _waits(run: Run, found: Mapping[str, tuple[Stage, Sequence[_Shard]]]) -> dict[str, float]:
    """From the end of what a stage waits for to its first process; here, from when something made room, if
    later.
    """
    ends = {job: max(s.manifest.created for s in shards) for job, (_, shards) in found.items()}
    every = [s.manifest.created for _, shards in found.values() for s in shards]
    here = not Journal(run.root)
    waits = {}
    for job, (stage, shards) in found.items():
        before = after_of(run.config, stage.round, stage.name)
        if before and all(name in ends for name in before):
            first, ready = min(s.first for s in shards), max(ends[name] for name in before)
            room = max((end for end in every if ready < end <= first), default=ready) if here else ready
            waits[job] = max(0.0, first - room)
    return waits


def _row(run: Run, stage: Stage, s: _Shard, wait_s: float | None) -> Row:
    manifest, told, first = s.manifest, s.winner, s.winner.first
    begin = first["time"]
    end = next((e["time"] for e in told.events if e["kind"] == "done"), manifest.created)
    if stage.kind.ranks:
        work = _steps(stage, told)
    elif stage.kind.array:
        work = _parts(told.parts())
    else:
        size = cost_of(stage.kind).size(manifest.counts)
        work = (begin, end, 0.0, ((size, end - begin),))
    work_begin, work_end, save_s, pieces = work
    logp_s = next((e["seconds"] for e in told.phases() if e["name"] == "log-probabilities"), 0.0)
    return Row(
        run=run.root.name, stage=stage.name, round=stage.round, index=manifest.shard.index, ranks=told.ranks,
        wait_s=wait_s, boot_s=first.get("boot_s", 0.0),
        start_s=round(max(0.0, (work_begin or end) - begin - logp_s), 3),
        end_s=round(max(0.0, end - work_end), 3) if work_end else 0.0, save_s=round(save_s, 4),
        pieces=pieces, base=bool(stage.role) and not stage.round,
        yields=_yields(stage, s) | _logp(stage, manifest, pieces, told.ranks, logp_s),
        bytes=sum(f.bytes for f in manifest.files), files=len(manifest.files) + 1,
    )  # fmt: skip


def _yields(stage: Stage, s: _Shard) -> dict[str, float]:
    """Counts whose ratios the next plan needs."""
    items, tokens = float(sum(p.items for p in s.parts)), float(sum(p.tokens for p in s.parts))
    found = cost_of(stage.kind).yields(stage, s.manifest.counts, items, tokens)
    return found | {"bytes": float(sum(f.bytes for f in s.manifest.files))} if found else {}


def _logp(stage: Stage, manifest: Manifest, pieces: Pieces, ranks: int, seconds: float) -> dict[str, float]:
    """What a training did for every token before its first step, and how many there were."""
    samples, steps = manifest.counts.get("samples", 0.0), manifest.counts.get("steps", 0.0)
    if not (seconds and samples and steps and pieces):
        return {}
    in_step = min(stage.section.batch_samples, samples * stage.section.epochs / steps)
    return {"logp_s": seconds, "tokens": samples * pieces[0][0] * ranks / in_step}


def _parts(parts: Sequence[Part]) -> Work:
    """Each part's sampled tokens and seconds."""
    if not parts:
        return NO_WORK
    pieces = tuple((float(p.tokens), round(p.end - p.begin, 3)) for p in parts)
    return parts[0].begin, parts[-1].end, 0.0, pieces


def _steps(stage: Stage, told: Told) -> Work:
    """The mean step: tokens of one rank, and seconds; where steps are uneven, with all that lies between."""
    done = told.steps()
    numbers = sorted(done)
    if len(numbers) < 2:
        return NO_WORK
    laps = {b: done[b]["time"] - done[a]["time"] for a, b in pairwise(numbers) if b == a + 1}
    reckon = cost_of(stage.kind)
    every = reckon.keeps_every(stage.section)
    saving = {n: s for n, s in laps.items() if reckon.even(stage.section) and (n - 1) % every == 0}
    plain = {n: s for n, s in laps.items() if n not in saving} or laps
    step_s = statistics.fmean(plain.values())
    tokens = [done[n]["tokens_per_s"] * s / told.ranks for n, s in plain.items() if "tokens_per_s" in done[n]]
    save_s = statistics.median(saving.values()) - statistics.median(plain.values()) if saving else 0.0
    piece = (_digits(statistics.fmean(tokens) if tokens else 0.0), _digits(step_s))
    return done[numbers[0]]["time"] - step_s, done[numbers[-1]]["time"], max(0.0, save_s), (piece,)


def _digits(x: float) -> float:
    return float(f"{x:.6g}")


# ------------------------------------------------------------------------ nodes that were taken away
@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How often nodes were taken in how many seconds of nodes, and the median time until a job ran again."""

    run: str
    taken: int
    node_s: float
    away_s: float | None


def seen_by(run: Run) -> Iterator[Seen]:
    """Nothing by a run that Slurm has had no part in: nobody takes its machine away.

    Counted are attempts that were preempted, lost their node or died without a word, and whose job Slurm
    started again: who cancels a job, or resumes a run, starts another one.
    """
    if Journal(run.root):
        tries = account(run).tries
        away, node_s = list(_away(tries)), sum(t.seconds * t.nodes for t in tries)
        median = round(statistics.median(away), 1) if away else None
        yield Seen(run=run.root.name, taken=len(away), node_s=round(node_s, 1), away_s=median)


def _away(tries: Sequence[Try]) -> Iterator[float]:
    """Of every taking, the seconds until the same job was at work again."""
    jobs: dict[tuple, list[Try]] = defaultdict(list)
    for t in sorted(tries, key=lambda t: t.begin):
        jobs[t.round, t.stage, t.index, split_attempt(t.id)[0]].append(t)
    for several in jobs.values():
        yield from (max(0.0, b.begin - a.end) for a, b in pairwise(several) if a.ended in TAKEN)
