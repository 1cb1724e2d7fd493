"""What a run measured, for the next plan: what its stages took and gave, how often a node was taken away from
it, and how far its own plan lay from what came. Read from manifests and events.
"""

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jobs.costs.attempts import Piece, Told, Try, told_by
from jobs.costs.calibration import MAX_RUNS, Calibration, Pieces, Row, Taught, keep, model_label
from jobs.costs.forecast import FROZEN
from jobs.costs.ledger import Ledger, ledger
from jobs.plan.chain import after_of
from jobs.runs.queue import Journal
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.stages.cost import cost_of
from serl.stages.kind import Stage, stage_of

TAKEN = ("preempted", "killed")
MAX_SHARDS = 64  # whose pieces are kept: as many tell the pace of a thousand


def learn_from(run: Run) -> Ledger:
    """Let what a run measured serve the next plan; nothing of a run whose cluster nobody wrote down."""
    book = ledger(run)
    if book.forecast:
        learn(run, book.forecast.cluster, book)
    return book


def learn_from_trials(roots: Iterable[Path]) -> None:
    """As many of them as are remembered, each as far as it is done."""
    for root in islice((root for root in roots if (root / FROZEN).exists()), MAX_RUNS):
        with contextlib.suppress(RunError):  # damaged, which the report says
            learn_from(Run.open(root))


def learn(run: Run, cluster: str, book: Ledger | None = None) -> Calibration:
    """Counted as taken are attempts that were preempted or died without a word, and whose job Slurm started
    again: who cancels a job, or resumes a run, starts another one. Nobody takes this machine away.
    """
    book, away = book or ledger(run), list[float]()
    tries = book.account.total.tries if Journal(run.root) else ()
    latest: dict[tuple[Shard, str], Try] = {}
    for t in tries:
        before = latest.get((t.shard, t.job))
        if before and before.ended in TAKEN:
            away.append(max(0.0, t.begin - before.end))
        latest[t.shard, t.job] = t
    mine = Taught(
        run=run.root.name,
        rows=tuple(rows(run)),
        taken=len(away),
        node_s=round(sum(t.seconds * t.nodes for t in tries), 1),
        away_s=round(statistics.median(away), 1) if away else None,
        error=None if (error := book.error()) is None else -math.log1p(error),
    )
    return keep(run.data_root, cluster, model_label(run.config), mine)


# ------------------------------------------------------------------------------------------------ rows
@dataclass(frozen=True, kw_only=True)
class _Shard:
    """A published shard: the attempt that did it, when the first was there, and the parts of all."""

    stage: Stage
    manifest: Manifest
    winner: Told
    first: float
    parts: Sequence[Piece]

    def times(self) -> tuple[float, float, float | None, Pieces]:
        """Seconds to its first piece, after its last, and of a save; and the pieces."""
        told, kind, counts = self.winner, self.stage.kind, self.manifest.counts
        begin, save_s = told.first["time"], None
        end = next((e["time"] for e in told.events if e["kind"] == "done"), self.manifest.created)
        before_s = sum(e["seconds"] for e in told.phases if e["name"] == "log-probabilities")
        work = told.parts
        pieces = tuple((p.tokens, round(p.seconds, 3)) for p in work)
        if kind.ranks:  # what is reckoned of every token before the first step is spread over the steps
            work = told.steps if len(told.steps) > 1 else []
            before_each_s = before_s / max(1.0, counts.get("steps", len(work)))
            pieces, save_s = _mean_step(self.stage, work[1:], told.ranks, before_each_s)
        elif not kind.array:
            work = [Piece(number=0, begin=begin, end=end)]
            pieces = ((cost_of(kind).size(counts), end - begin),)
        first, last = (work[0].begin, work[-1].end) if work else (end, end)
        start_s = told.first.get("boot_s", 0.0) + max(0.0, first - begin - before_s)
        return start_s, max(0.0, end - last), save_s, pieces

    def yields(self) -> Mapping[str, float]:
        """Counts whose ratios the next plan needs."""
        items, tokens = float(sum(p.items for p in self.parts)), sum(p.tokens for p in self.parts)
        return cost_of(self.stage.kind).yields(self.stage, self.manifest.counts, items, tokens)


def _mean_step(
    stage: Stage, steps: Sequence[Piece], ranks: int, before_s: float
) -> tuple[Pieces, float | None]:
    """Tokens of one rank in the mean step and its seconds; and those of a save, where it is seen: where steps
    are uneven they are taken with all that lies between.
    """
    if not steps:
        return (), None
    reckon = cost_of(stage.kind)
    every = reckon.keeps_every(stage.section)
    saving = [p for p in steps if reckon.even(stage.section) and (p.number - 1) % every == 0]
    plain = [p for p in steps if p not in saving] or steps
    tokens = statistics.fmean([p.tokens for p in plain if p.tokens] or [0.0]) / ranks
    plain_s, saving_s = [p.seconds for p in plain], [p.seconds for p in saving]
    save_s = max(0.0, statistics.median(saving_s) - statistics.median(plain_s)) if saving else None
    return ((tokens, statistics.fmean(plain_s) + before_s),), save_s


def rows(run: Run) -> list[Row]:
    """One for each stage of which this run has published shards itself, and told of them."""
    told, by_job = told_by(run), dict[str, list[_Shard]]()
    for stage in run.config.stages:
        shards = run.shards(stage.round, stage.name)
        found = (_shard(run, stage, s, told.get((s.round, s.stage, s.index), ())) for s in shards)
        if mine := [s for s in found if s]:
            by_job[stage.job] = mine
    return [_row(shards, _wait_s(run, job, by_job)) for job, shards in by_job.items()]


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


def _wait_s(run: Run, job: str, by_job: Mapping[str, Sequence[_Shard]]) -> float | None:
    """From the end of what a job waits for to its first process; here, from when there was room."""
    before = after_of(run.config, *stage_of(job))
    if not before or not by_job.keys() >= set(before):
        return None
    ready = max(s.manifest.created for name in before for s in by_job[name])
    first = min(s.first for s in by_job[job])
    if not Journal(run.root):
        ends = (s.manifest.created for several in by_job.values() for s in several)
        ready = max((end for end in ends if ready < end <= first), default=ready)
    return max(0.0, first - ready)


def _row(shards: Sequence[_Shard], wait_s: float | None) -> Row:
    stage = shards[0].stage
    starts, ends, saves, pieces = zip(*(s.times() for s in shards))
    yields: Counter[str] = Counter()
    for s in shards:
        yields.update(s.yields())
    seen = {"start_s": starts, "end_s": ends, "save_s": [s for s in saves if s is not None]}
    medians = {name: round(statistics.median(values), 3) for name, values in seen.items() if values}
    return Row(
        stage=stage.listed,
        round=stage.round,
        base=bool(stage.role) and not stage.round,
        wait_s=wait_s,
        shards=tuple(filter(None, pieces))[:: -(-len(pieces) // MAX_SHARDS)],
        yields=dict(yields),
        **medians,
    )
