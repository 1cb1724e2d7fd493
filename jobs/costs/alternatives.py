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

from jobs.costs.loads import Planner
from jobs.costs.simulate import HOUR_S, Interval, JobLoad, World, check, daly_interval_s, study
from jobs.plan.chain import own_work, plan
from jobs.plan.cluster import Local, Slurm
from jobs.shell.command import load_run
from serl.config.files import ConfigError
from serl.stages.kind import Stage

FACTORS = (0.25, 0.5, 2.0, 4.0)
KEYS = ("shards", "part_prompts", "checkpoint_every")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A plan in a world. `wasted_s`: start-ups, saves, ends and what preemption takes; not what smaller parts
    cost, which is in `used_s`, too. `cheapest`: better than the present value of its key and all others.
    """

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
class Plan:
    """A run file with overrides, on a cluster of which it was measured."""

    path: Path
    overrides: Sequence[str]
    cluster: Local | Slurm
    data: Path

    def planner(self, *change: str) -> Planner:
        """Refuses what was never measured there."""
        planner = Planner.of(load_run(self.path, [*self.overrides, *change]), self.cluster, self.data)
        if unknown := planner.unknown(own_work(plan(planner.config, lambda shard: False))):
            raise ValueError(
                f"{', '.join(unknown)}: never measured with {planner.known.model} on "
                f"{planner.known.cluster}, so there is nothing to play; launch a small run there (like "
                "rounds=1) and write its report: `python -m jobs.report RUN`"
            )
        return planner

    def lines(self, worlds: Sequence[World]) -> list[Line]:
        """The plan in each world, and its changes in the first; refuses what can run in none."""
        told = [self._line(world) for world in worlds]
        if not (possible := [pair for pair in zip(worlds, told) if not pair[1].refused]):
            raise ValueError(told[0].refused)
        return [*told, *self._changes(*possible[0])]

    def _line(self, world: World, key: str = "", value: int = 0) -> Line:
        planner = self.planner(*([f"phases.{key}={value}"] if key else []))
        loads = [planner.load(job) for job in own_work(plan(planner.config, lambda shard: False))]
        where = {"nodes": world.slots, "array_limit": world.array_limit}
        where |= {"preempt_per_hour": world.preempt_per_hour}
        try:
            check(loads, world)
        except ValueError as e:
            return Line(**where, refused=str(e))
        used = [(load, load.expected_s(world.preempt_per_hour)) for load in loads]
        return Line(
            **where,
            change=f"{key.partition('.')[2]}={value}" if key else "",
            seconds=Interval.of([o.makespan_s for o in study(loads, world)]),
            used_s=sum(s * load.width for load, s in used),
            wasted_s=sum((s - sum(t.work_s for t in load.tasks)) * load.width for load, s in used),
            gpu_hours=sum(s * load.gpus for load, s in used) / HOUR_S,
        )

    def _changes(self, world: World, now: Line) -> Iterator[Line]:
        """Of the stages of the last round, and with them of the rounds that are like it."""
        planner = self.planner()
        last = [job for job in own_work(plan(planner.config, lambda shard: False)) if not job.of.milestone]
        for job in (job for job in last if job.round == planner.config.rounds > 0):
            for key in (key for key in KEYS if key in type(job.of.section).model_fields):
                name, tried = f"{job.of.phase}.{job.stage}.{key}", []
                for value in _values(job.of, key, planner.load(job), world):
                    with contextlib.suppress(ConfigError):  # a value that the configuration does not allow
                        tried.append(self._line(world, name, value))
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
