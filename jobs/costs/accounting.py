"""What a run used, and what of that was lost: of every attempt at every shard its time, what came of it, and
why it ended.

Every attempt has an event file, so this works everywhere, also for attempts that were killed and left no last
word. Work that survived its attempt, as a committed part or in a checkpoint that another attempt went on
from, is not lost. used = kept + lost, always. Nothing is changed here.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.costs.attempts import Judge, Try, heartbeats, told_by
from jobs.runs.progress import span
from jobs.runs.queue import recorded
from serl.run.rundir import Run


@dataclass(frozen=True)
class Cost:
    """What tries used, in seconds of tasks (or ranks) and hours of GPUs, and what of it was lost."""

    tries: tuple[Try, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tries + other.tries)

    @property
    def attempts(self) -> int:
        return len(self.tries)

    @property
    def used_s(self) -> float:
        return sum(t.seconds * t.ranks for t in self.tries)

    @property
    def gpu_hours(self) -> float:
        return sum(t.seconds * t.gpus for t in self.tries) / 3600

    @property
    def lost_s(self) -> Mapping[str, float]:
        """By cause, the worst first."""
        found: Counter[str] = Counter()
        for t in self.tries:
            found[t.lost[0]] += t.lost[1] * t.ranks
        return {cause: s for cause, s in found.most_common() if s}

    @property
    def all_lost_s(self) -> float:
        return sum(self.lost_s.values())

    @property
    def all_lost_gpu_hours(self) -> float:
        return sum(t.lost[1] * t.gpus for t in self.tries) / 3600

    def facts(self) -> dict:
        """For --json and for files."""
        return {
            "attempts": self.attempts,
            "used_s": round(self.used_s, 1),
            "lost_s": round(self.all_lost_s, 1),
            "lost_s_by_cause": {cause: round(s, 1) for cause, s in self.lost_s.items()},
            "gpu_hours": round(self.gpu_hours, 4),
            "lost_gpu_hours": round(self.all_lost_gpu_hours, 4),
        }

    def sentence(self) -> str:
        """One line for status."""
        if not self.tries:
            return "nothing used yet"
        gpus = f", {self.gpu_hours:.2f} GPU-hours" if self.gpu_hours else ""
        told = f"used {span(self.used_s)} of tasks{gpus} in {self.attempts} attempts; lost "
        if not self.all_lost_s:
            return told + "nothing"
        gpus = f", {self.all_lost_gpu_hours:.2f} GPU-hours" if self.gpu_hours else ""
        causes = ", ".join(f"{cause} {span(s)}" for cause, s in self.lost_s.items())
        return f"{told}{span(self.all_lost_s)}{gpus} ({self.all_lost_s / self.used_s:.1%}): {causes}"


@dataclass(frozen=True, slots=True)
class Account:
    """The costs of a run's jobs, by their names."""

    jobs: Mapping[str, Cost]

    @property
    def total(self) -> Cost:
        return sum(self.jobs.values(), Cost())

    def facts(self) -> dict:
        return self.total.facts() | {"stages": {name: cost.facts() for name, cost in self.jobs.items()}}


def account(run: Run, *, live: bool = False, now: float | None = None) -> Account:
    """Of all attempts. `live`: what has no end is at work, not dead."""
    told = told_by(run)
    scheduled = any(s.id is not None and s.shards for s in recorded(run))  # a relay does no shard
    beats = heartbeats(run.root / "logs")
    judge = Judge(scheduled=scheduled, live=live, now=now or time.time(), beats=beats)
    found: dict[str, Cost] = {}
    for stage in run.config.stages:
        tries: list[Try] = []
        for shard in run.shards(stage.round, stage.name):
            if several := told.get((shard.round, shard.stage, shard.index)):
                tries += judge.tries(shard, several, run.manifest(shard), stage.kind)
        found[stage.job] = Cost(tuple(tries))
    return Account(found)
