"""What a run measured, for `jobs.costs.calibration` to keep: what its stages took, and how often a node was
taken away from it. Read from manifests and events.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from jobs.costs.accounting import account
from jobs.costs.sacct import split_attempt
from jobs.costs.told import Piece, Told, told_by
from jobs.costs.tries import Try
from jobs.plan.chain import after_of
from jobs.runs.queue import Journal
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.stages.cost import cost_of
from serl.stages.kind import Stage

TAKEN = ("preempted", "node failure", "killed")
MAX_SHARDS = 64  # whose pieces are kept: as many tell the pace of a thousand
Pieces = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage and round of a run, as far as it was published and told of. Seconds are medians over shards.

    `shards` has, of each, the (size, seconds) of its parts, or of its mean step; `yields` what came of all.
    """

    run: str
    stage: str
    round: int
    base: bool = False  # the training of a base model, which is another thing than that of a round
    wait_s: float | None = None  # from the end of what it waited for; None where it waited for nothing
    start_s: float = 0.0  # without what a training does for every token before its first step: a yield
    end_s: float = 0.0
    save_s: float = 0.0
    shards: tuple[Pieces, ...] = ()
    yields: Mapping[str, float] = field(default_factory=dict)
    files: float = 0.0  # of a shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How often nodes were taken in how many seconds of nodes, and the median time until a job ran again."""

    run: str
    taken: int
    node_s: float
    away_s: float | None


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """A published shard: the attempt that did it, when the first was there, and the parts of all."""

    stage: Stage
    manifest: Manifest
    winner: Told
    first: float
    parts: Sequence[Piece]

    @property
    def before_s(self) -> float:
        """What a training did for every token before its first step."""
        told = (e["seconds"] for e in self.winner.phases if e["name"] == "log-probabilities")
        return next(told, 0.0)

    def times(self) -> tuple[float, float, float, Pieces]:
        """Seconds to its first piece, after its last, and of a save; and the pieces."""
        told, kind = self.winner, self.stage.kind
        begin = told.first["time"]
        end = next((e["time"] for e in told.events if e["kind"] == "done"), self.manifest.created)
        work, save_s = told.parts, 0.0
        pieces = tuple((p.tokens, round(p.seconds, 3)) for p in work)
        if kind.ranks:
            work = told.steps if len(told.steps) > 1 else []
            pieces, save_s = _mean_step(self.stage, work[1:], told.ranks)
        elif not kind.array:
            work = [Piece(number=0, begin=begin, end=end)]
            pieces = ((cost_of(kind).size(self.manifest.counts), end - begin),)
        first, last = (work[0].begin, work[-1].end) if work else (end, end)
        start_s = told.first.get("boot_s", 0.0) + max(0.0, first - begin - self.before_s)
        return start_s, max(0.0, end - last), save_s, pieces

    def yields(self, pieces: Pieces) -> dict[str, float]:
        """Counts whose ratios the next plan needs."""
        counts, section = self.manifest.counts, self.stage.section
        items, tokens = float(sum(p.items for p in self.parts)), sum(p.tokens for p in self.parts)
        found = cost_of(self.stage.kind).yields(self.stage, counts, items, tokens)
        if found:
            found |= {"bytes": float(sum(f.bytes for f in self.manifest.files))}
        samples, steps = counts.get("samples", 0.0), counts.get("steps", 0.0)
        if self.before_s and samples and steps and pieces:
            in_step = min(section.batch_samples, samples * section.epochs / steps)
            found |= {"logp_s": self.before_s, "tokens": samples * pieces[0][0] * self.winner.ranks / in_step}
        return found


def rows(run: Run) -> list[Row]:
    """One for each stage of which this run has published shards itself, and told of them."""
    told, by_job = told_by(run), {}
    for stage in run.config.stages:
        shards = run.shards(stage.round, stage.name)
        found = (_shard(run, stage, s, told.get((s.round, s.stage, s.index), ())) for s in shards)
        if mine := [s for s in found if s]:
            by_job[stage.job] = mine
    waits = dict(_waits(run, by_job))
    return [_row(run, shards, waits.get(job)) for job, shards in by_job.items()]


def _shard(run: Run, stage: Stage, shard: Shard, attempts: Sequence[Told]) -> _Shard | None:
    try:
        manifest = run.manifest(shard)
    except RunError:  # a damaged shard teaches nothing; the report says so
        return None
    begun = {t.id: t for t in attempts if t.first["kind"] == "start"}
    if manifest is None or manifest.attempt not in begun:
        return None
    parts = list({p.number: p for t in begun.values() for p in t.parts}.values())
    first, winner = min(t.begin for t in begun.values()), begun[manifest.attempt]
    return _Shard(stage=stage, manifest=manifest, winner=winner, first=first, parts=parts)


def _waits(run: Run, by_job: Mapping[str, Sequence[_Shard]]) -> Iterator[tuple[str, float]]:
    """By job, from the end of what it waits for to its first process; here, from when there was room."""
    ends = {job: [s.manifest.created for s in shards] for job, shards in by_job.items()}
    rooms = [] if Journal(run.root) else [end for several in ends.values() for end in several]
    for job, shards in by_job.items():
        stage, first = shards[0].stage, min(s.first for s in shards)
        before = after_of(run.config, stage.round, stage.name)
        if before and all(name in ends for name in before):
            ready = max(max(ends[name]) for name in before)
            yield job, max(0.0, first - max((end for end in rooms if ready < end <= first), default=ready))


def _row(run: Run, shards: Sequence[_Shard], wait_s: float | None) -> Row:
    stage = shards[0].stage
    starts, ends, saves, pieces = zip(*(s.times() for s in shards))
    yields: Counter[str] = Counter()
    for s, own in zip(shards, pieces):
        yields.update(s.yields(own))
    files = [len(s.manifest.files) + 1 for s in shards]
    middle = {"start_s": starts, "end_s": ends, "save_s": saves, "files": files}
    return Row(
        run=run.root.name, stage=stage.listed, round=stage.round, base=bool(stage.role) and not stage.round,
        wait_s=wait_s, shards=tuple(filter(None, pieces))[:: -(-len(pieces) // MAX_SHARDS)],
        yields=dict(yields), **{name: round(statistics.median(v), 3) for name, v in middle.items()},
    )  # fmt: skip


def _mean_step(stage: Stage, steps: Sequence[Piece], ranks: int) -> tuple[Pieces, float]:
    """Tokens of one rank in the mean step and its seconds; and those of a save, where it is seen: where steps
    are uneven they are taken with all that lies between.
    """
    if not steps:
        return (), 0.0
    reckon = cost_of(stage.kind)
    every = reckon.keeps_every(stage.section)
    saving = [p for p in steps if reckon.even(stage.section) and (p.number - 1) % every == 0]
    plain = [p for p in steps if p not in saving] or steps
    tokens = statistics.fmean([p.tokens for p in plain if p.tokens] or [0.0]) / ranks
    plain_s, saving_s = [p.seconds for p in plain], [p.seconds for p in saving]
    save_s = statistics.median(saving_s) - statistics.median(plain_s) if saving else 0.0
    return ((tokens, statistics.fmean(plain_s)),), max(0.0, save_s)


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
