"""What a run used, and what of that was lost: for every attempt of every shard, its time, what came of it,
and why it ended.

Every attempt has an event file, so this works everywhere, also for attempts that were killed and left no last
word. Where Slurm keeps accounts, one call of sacct for the whole run gives exact ends and causes. Work that
survived its attempt, as a committed part or in a checkpoint that another attempt went on from, is not lost.
used = kept + lost, always. Nothing is changed here.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.chain.queue import Journal, recorded
from jobs.costs.sacct import Record, by_attempt, split_attempt
from jobs.costs.told import told_by
from jobs.costs.tries import Clues, Try, eventless, heartbeats, judge, position
from serl.run.rundir import Run
from serl.stages.kind import job_name

NOTHING_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of tasks (of an array, or ranks of a training) and hours of GPUs: used, and lost by cause."""

    used_s: float = 0.0
    gpu_hours: float = 0.0
    lost_s: Mapping[str, float] = field(default_factory=dict)
    lost_gpu_hours: Mapping[str, float] = field(default_factory=dict)
    wait_s: float = 0.0
    attempts: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            used_s=self.used_s + other.used_s, gpu_hours=self.gpu_hours + other.gpu_hours,
            wait_s=self.wait_s + other.wait_s, attempts=self.attempts + other.attempts,
            lost_s=Counter(self.lost_s) + Counter(other.lost_s),
            lost_gpu_hours=Counter(self.lost_gpu_hours) + Counter(other.lost_gpu_hours),
        )  # fmt: skip

    @property
    def all_lost_s(self) -> float:
        return sum(self.lost_s.values())

    @property
    def all_lost_gpu_hours(self) -> float:
        return sum(self.lost_gpu_hours.values())

    def causes(self) -> list[tuple[str, float]]:
        """Seconds lost by cause, the worst first."""
        return sorted(self.lost_s.items(), key=lambda item: -item[1])

    def facts(self) -> dict:
        """For --json and for files."""
        return {
            "attempts": self.attempts, "used_s": round(self.used_s, 1), "lost_s": round(self.all_lost_s, 1),
            "queue_wait_s": round(self.wait_s, 1), "gpu_hours": round(self.gpu_hours, 4),
            "lost_s_by_cause": {k: round(v, 1) for k, v in sorted(self.lost_s.items())},
            "lost_gpu_hours": round(self.all_lost_gpu_hours, 4),
            "lost_gpu_hours_by_cause": {k: round(v, 4) for k, v in sorted(self.lost_gpu_hours.items())},
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The costs of a run by (round, stage), and whether Slurm's own records went into them."""

    costs: Mapping[tuple[int, str], Cost]
    tries: tuple[Try, ...]

    @property
    def by_slurm(self) -> bool:
        return any(t.exact for t in self.tries)

    @property
    def total(self) -> Cost:
        return sum(self.costs.values(), Cost())

    def facts(self) -> dict:
        source = "events and sacct" if self.by_slurm else "events"
        stages = {job_name(*key): cost.facts() for key, cost in self.costs.items()}
        return self.total.facts() | {"source": source, "stages": stages}

    def sentence(self) -> str:
        """One line for status."""
        total = self.total
        if not total.attempts:
            return "nothing used yet"
        gpus = lost_gpus = ""
        if total.gpu_hours:
            gpus = f", {total.gpu_hours:.2f} GPU-hours"
            lost_gpus = f", {total.all_lost_gpu_hours:.2f} GPU-hours"
        told = f"used {duration(total.used_s)} of tasks{gpus} in {total.attempts} attempts; lost "
        if not total.all_lost_s:
            return told + "nothing"
        causes = ", ".join(f"{cause} {duration(s)}" for cause, s in total.causes())
        share = total.all_lost_s / total.used_s
        return f"{told}{duration(total.all_lost_s)}{lost_gpus} ({share:.1%}): {causes}"


def account(
    run: Run,
    *,
    live: bool = False,
    now: float | None = None,
    slurm: Callable[[Sequence[str]], Sequence[Record]] | None = None,
) -> Account:
    """Of all attempts so far. `live`: what has no end is at work, not dead. `slurm` asks sacct, if Slurm has
    part.
    """
    told = told_by(run)
    submitted = {s.id for s in recorded(run) if s.id is not None and s.shards}  # a relay does no shard
    ids = [t.id for several in told.values() for t in several]
    records = by_attempt(slurm(sorted(submitted)), ids) if slurm is not None and submitted else {}
    clues = Clues(
        records=records, scheduled=bool(submitted), live=live, now=now or time.time(),
        beats=heartbeats(run.root / "logs"),
    )  # fmt: skip
    found: dict[tuple[int, str], list[Try]] = {(s.round, s.name): [] for s in run.config.stages}
    for stage in run.config.stages:
        for shard in run.shards(stage.round, stage.name) if told else ():
            if several := told.get((stage.round, stage.name, shard.index)):
                tries = judge(shard, several, run.manifest(shard), stage.kind, clues)
                found[stage.round, stage.name] += tries
    for t in _eventless(run, records, {split_attempt(id) for id in ids}):
        found[t.round, t.stage].append(t)
    return Account(
        costs={key: sum(map(_cost, tries), Cost()) for key, tries in found.items()},
        tries=tuple(t for tries in found.values() for t in tries),
    )


def _eventless(
    run: Run, records: Mapping[tuple[str, int], Record], known: set[tuple[str, int]]
) -> Iterator[Try]:
    """Of the run's own jobs: of those of a shared stage, attempts without events may be another run's."""
    own = {s.id: s for s in Journal(run.root).submissions() if s.shards}
    for (job, restart), record in records.items():
        submission = own.get(job.partition("_")[0])
        told = submission is None or (job, restart) in known or record.end is None
        if not told and position(job) < len(submission.shards):
            yield eventless(job, record, submission)


def _cost(t: Try) -> Cost:
    """A try's time; lost of it is what it did not keep, and its start-up if another's counted."""
    lost: Counter[str] = Counter()
    if t.ended == "done":
        lost["duplicate"] = t.seconds - t.kept_s
    elif t.ended != "at work":
        lost["start-up repeated"] = t.startup_s if t.repeated else 0.0
        lost[t.ended] = t.seconds - t.kept_s - t.startup_s
    lost_s = {cause: s for cause, s in lost.items() if s > NOTHING_S}
    return Cost(
        used_s=t.seconds * t.ranks, gpu_hours=t.seconds * t.gpus / 3600, wait_s=t.wait_s, attempts=1,
        lost_s={cause: s * t.ranks for cause, s in lost_s.items()},
        lost_gpu_hours={cause: s * t.gpus / 3600 for cause, s in lost_s.items() if t.gpus},
    )  # fmt: skip


def duration(seconds: float, digits: int = 0) -> str:
    """In the unit that suits it; minutes to so many digits."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.{digits}f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"
