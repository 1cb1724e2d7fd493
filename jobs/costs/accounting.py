"""What a run used, and what of that was lost: for every attempt of every shard, its time, what came of it,
and why it ended.

Every attempt has an event file, so this works everywhere, also for attempts that were killed and left no last
word. Where Slurm keeps accounts, one call of sacct for the whole run gives exact ends and causes. Work that
survived its attempt, as a committed part or in a checkpoint that another attempt went on from, is not lost.
used = kept + lost, always. Nothing is changed here.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from jobs.costs.sacct import Record, by_attempt, split_attempt
from jobs.costs.told import told_by
from jobs.costs.tries import Clues, Try, eventless, heartbeats, judge
from jobs.runs.queue import Journal, recorded
from serl.run.rundir import Run
from serl.stages.kind import job_name


@dataclass(frozen=True)
class Cost:
    """What tries used, in seconds of tasks (or ranks) and hours of GPUs, and what of it was lost."""

    tries: tuple[Try, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tries + other.tries)

    @property
    def attempts(self) -> int:
        return len(self.tries)

    @cached_property
    def used_s(self) -> float:
        return sum(t.seconds * t.ranks for t in self.tries)

    @cached_property
    def gpu_hours(self) -> float:
        return sum(t.seconds * t.gpus for t in self.tries) / 3600

    @property
    def wait_s(self) -> float:
        return sum(t.wait_s for t in self.tries)

    @cached_property
    def lost_s(self) -> Mapping[str, float]:
        """By cause, the worst first."""
        return self._lost(lambda t: t.ranks)

    @cached_property
    def lost_gpu_hours(self) -> Mapping[str, float]:
        return self._lost(lambda t: t.gpus / 3600)

    @property
    def all_lost_s(self) -> float:
        return sum(self.lost_s.values())

    @property
    def all_lost_gpu_hours(self) -> float:
        return sum(self.lost_gpu_hours.values())

    def _lost(self, weight: Callable[[Try], float]) -> dict[str, float]:
        found: Counter[str] = Counter()
        for t in self.tries if any(map(weight, self.tries)) else ():
            found.update({cause: s * weight(t) for cause, s in t.lost_s().items()})
        return dict(found.most_common())

    def facts(self) -> dict:
        """For --json and for files."""
        return {
            "attempts": self.attempts, "used_s": round(self.used_s, 1), "lost_s": round(self.all_lost_s, 1),
            "queue_wait_s": round(self.wait_s, 1), "gpu_hours": round(self.gpu_hours, 4),
            "lost_s_by_cause": {k: round(v, 1) for k, v in sorted(self.lost_s.items())},
            "lost_gpu_hours": round(self.all_lost_gpu_hours, 4),
            "lost_gpu_hours_by_cause": {k: round(v, 4) for k, v in sorted(self.lost_gpu_hours.items())},
        }  # fmt: skip

    def sentence(self) -> str:
        """One line for status."""
        if not self.tries:
            return "nothing used yet"
        gpus = f", {self.gpu_hours:.2f} GPU-hours" if self.gpu_hours else ""
        told = f"used {duration(self.used_s)} of tasks{gpus} in {self.attempts} attempts; lost "
        if not self.all_lost_s:
            return told + "nothing"
        gpus = f", {self.all_lost_gpu_hours:.2f} GPU-hours" if self.gpu_hours else ""
        causes = ", ".join(f"{cause} {duration(s)}" for cause, s in self.lost_s.items())
        return f"{told}{duration(self.all_lost_s)}{gpus} ({self.all_lost_s / self.used_s:.1%}): {causes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The costs of a run by (round, stage)."""

    costs: Mapping[tuple[int, str], Cost]

    @property
    def tries(self) -> tuple[Try, ...]:
        return self.total.tries

    @property
    def by_slurm(self) -> bool:
        """Whether Slurm's own records went into it."""
        return any(t.exact for t in self.tries)

    @property
    def total(self) -> Cost:
        return sum(self.costs.values(), Cost())

    def sentence(self) -> str:
        return self.total.sentence()

    def facts(self) -> dict:
        source = "events and sacct" if self.by_slurm else "events"
        stages = {job_name(*key): cost.facts() for key, cost in self.costs.items()}
        return self.total.facts() | {"source": source, "stages": stages}


def account(
    run: Run,
    *,
    live: bool = False,
    now: float | None = None,
    slurm: Callable[[Sequence[str]], Sequence[Record]] | None = None,
) -> Account:
    """Of all attempts. `live`: what has no end is at work, not dead. `slurm` asks sacct where it has part."""
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
            several = told.get((stage.round, stage.name, shard.index), ())
            done = run.manifest(shard) if several else None
            found[stage.round, stage.name] += judge(shard, several, done, stage.kind, clues)
    known = {split_attempt(id) for id in ids}
    for t in eventless(records, known, Journal(run.root).submissions()):
        found[t.round, t.stage].append(t)
    return Account(costs={key: Cost(tuple(tries)) for key, tries in found.items()})


def duration(seconds: float, digits: int = 0) -> str:
    """In the unit that suits it; minutes to so many digits."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.{digits}f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"
