"""What-if: a run on other nodes, array limits and preemption rates; and in the first of these worlds with
other shards, parts and checkpoint intervals, each as a change of its configuration. All are lines of one
table.

How long it takes is played; what is used and wasted is what theory expects, so that small differences are
none of chance.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.costs.forecast import forecast
from jobs.costs.loads import Planner
from jobs.costs.simulate import Interval, JobLoad, World, daly_interval_s
from jobs.plan.chain import own_work, plan
from jobs.shell.command import load_run
from serl.config.files import ConfigError
from serl.stages.kind import Stage

FACTORS = (0.25, 0.5, 2.0, 4.0)
KEYS = ("shards", "part_prompts", "checkpoint_every")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A plan in a world; see `Forecast`. `cheapest`: with this value of its key it uses least."""

    nodes: int | None
    array_limit: int | None
    preempt_per_hour: float
    change: str = ""
    refused: str = ""
    seconds: Interval | None = None
    used_s: float = 0.0
    wasted_s: float = 0.0
    gpu_hours: float = 0.0
    cheapest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A run file with overrides, on a cluster of which it was measured."""

    path: Path
    overrides: Sequence[str]
    data: Path
    planner: Planner

    def lines(self, worlds: Sequence[World]) -> list[Line]:
        """The plan in each world, and its changes in the first; refuses what can run in none."""
        told = [self._line(world) for world in worlds]
        if not (possible := [pair for pair in zip(worlds, told) if not pair[1].refused]):
            raise ValueError(told[0].refused)
        return [*told, *self._changes(*possible[0])]

    def _line(self, world: World, change: str = "") -> Line:
        config = load_run(self.path, [*self.overrides, *([f"phases.{change}"] if change else [])])
        jobs, cluster = plan(config, lambda shard: False), self.planner.cluster
        line = Line(
            nodes=world.slots, array_limit=world.array_limit, preempt_per_hour=world.preempt_per_hour,
            change=change.partition(".")[2],
        )  # fmt: skip
        try:
            told = forecast(config, jobs, cluster, self.data, world=world)
        except ValueError as e:
            return replace(line, refused=str(e))
        if told.unknown:
            return replace(line, refused=told.sentence())
        hours = sum(job.gpu_hours for job in told.jobs)
        used = {"used_s": told.used_s, "wasted_s": told.wasted_s, "gpu_hours": hours}
        return replace(line, seconds=told.seconds, **used)

    def _changes(self, world: World, now: Line) -> Iterator[Line]:
        """Of the stages of the last round, and with them of the rounds that are like it."""
        config = self.planner.config
        last = [job for job in own_work(plan(config, lambda shard: False)) if job.round == config.rounds > 0]
        for job in (job for job in last if not job.of.milestone):
            for key in (key for key in KEYS if key in type(job.of.section).model_fields):
                name, tried = f"{job.of.phase}.{job.stage}.{key}", []
                for value in _values(job.of, key, self.planner.load(job), world):
                    with contextlib.suppress(ConfigError):  # a value that the configuration does not allow
                        tried.append(self._line(world, f"{name}={value}"))
                best = min((now, *tried), key=lambda line: line.used_s)
                yield from (replace(line, cheapest=line is best) for line in tried)


def _values(stage: Stage, key: str, load: JobLoad, world: World) -> list[int]:
    """Around the present one; of checkpoints also the interval that theory knows."""
    now: int = getattr(stage.section, key)
    tried = {max(1, round(factor * now)) for factor in FACTORS}
    rate, task = world.preempt_per_hour * load.width, load.tasks[0]
    if key == "checkpoint_every" and rate and task.save_s and task.unit_s:
        tried.add(max(1, round(daly_interval_s(task.save_s, rate) / task.unit_s)))
    return sorted(tried - {now})
