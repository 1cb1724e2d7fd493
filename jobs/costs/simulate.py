"""A chain of jobs played out by chance: slots, array limits, preemption, stragglers. Pure: the same seed, the
same outcome.

A task makes itself ready, works in equal units, keeps its work every few of them, and ends. A preemption
comes as a Poisson process on each slot that the task holds; what is not kept by then is done again, by an
attempt that has to make itself ready anew and holds the same slots.
"""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Self

import numpy as np

HOUR_S = 3600.0
MAX_TRIES = 1000.0
HISTORIES, MAX_TASKS = 100, 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoad:
    """One task, undisturbed. A fraction of `units` is a smaller last part; a save follows every `keep_every`
    units but the last, after which the work is published.
    """

    start_s: float
    unit_s: float
    units: float
    keep_every: int = 1
    save_s: float = 0.0
    end_s: float = 0.0

    @property
    def work_s(self) -> float:
        return self.units * self.unit_s

    @property
    def seconds(self) -> float:
        """From start to end without a disturbance."""
        return self.start_s + self.work_s + self.saves(self.units) * self.save_s + self.end_s

    @property
    def longest_s(self) -> float:
        """From a start to the next save, at most."""
        stretch_s = min(self.units, self.keep_every) * self.unit_s
        return self.start_s + stretch_s + max(self.save_s, self.end_s)

    def saves(self, units: float) -> int:
        return max(0, math.ceil(units / self.keep_every - 1e-9) - 1)

    def expected_s(self, preempt_per_hour: float) -> float:
        """Mean seconds of all attempts together: each stretch between saves is a race against a Poisson
        process.

        A stretch c that follows a kept one takes e^(ls) (e^(lc) - 1) / l on average, where l is the rate and
        s the start-up that each failure costs (Daly 2006); the first start-up takes (e^(ls) - 1) / l.
        """
        rate = preempt_per_hour / HOUR_S
        if not rate:
            return self.seconds
        saves = self.saves(self.units)
        stretch_s = self.keep_every * self.unit_s + self.save_s
        last_s = (self.units - saves * self.keep_every) * self.unit_s + self.end_s
        restart = math.exp(min(700.0, rate * self.start_s))
        grown = saves * math.expm1(min(700.0, rate * stretch_s)) + math.expm1(min(700.0, rate * last_s))
        return (restart - 1) / rate + restart * grown / rate


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLoad:
    """The tasks of one stage and round, the jobs they wait for, how long each waits in the queue then, and
    the slots and GPUs that each holds. `straggle`: the log-normal sigma of one task's pace.
    """

    name: str
    tasks: tuple[TaskLoad, ...]
    after: tuple[str, ...] = ()
    width: int = 1
    gpus: int = 0
    wait_s: float = 0.0
    straggle: float = 0.0

    def expected_s(self, preempt_per_hour: float) -> float:
        """Of all tasks together, on average, in seconds of tasks."""
        return sum(t.expected_s(preempt_per_hour * self.width) for t in self.tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where the jobs run. None: no bound.

    A task whose slots are taken away starts again after `requeue_s`. `doubt` is the log-normal sigma of a
    factor common to everything: what the figures themselves may be wrong by.
    """

    slots: int | None = None
    array_limit: int | None = None
    preempt_per_hour: float = 0.0
    requeue_s: float = 0.0
    doubt: float = 0.0


def daly_interval_s(save_s: float, preempt_per_hour: float) -> float:
    """Work between saves that costs least, to first order: sqrt(2 x save x time to a taking) (Young 1974)."""
    return math.sqrt(2 * save_s * HOUR_S / preempt_per_hour)


def bearable_per_hour(jobs: Sequence[JobLoad]) -> float:
    """The preemption rate at which the longest stretch is begun `MAX_TRIES` times on average until kept."""
    longest_s = max((job.width * t.longest_s for job in jobs for t in set(job.tasks)), default=0.0)
    return math.log(MAX_TRIES) * HOUR_S / longest_s if longest_s else math.inf


def check(jobs: Sequence[JobLoad], world: World) -> None:
    """Raises ValueError for a chain that could never run, or would hardly ever be done."""
    for job in jobs:
        if world.slots is not None and job.width > world.slots:
            raise ValueError(
                f"{job.name}: one task needs {job.width} slots, and there are {world.slots}; give it more "
                "nodes, or fewer to the task"
            )
        if world.preempt_per_hour > (most := bearable_per_hour([job])):
            raise ValueError(
                f"{job.name}: a node taken away {world.preempt_per_hour:g} times an hour would hardly ever "
                f"be done with a stretch of its work; at most {most:.3g} times can be borne: keep work more "
                "often, by smaller parts or a smaller checkpoint interval"
            )


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the ends of a 90 % interval."""

    low: float
    median: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(*map(float, np.quantile(values, (0.05, 0.5, 0.95))))


@dataclass(slots=True)
class Outcome:
    """One history: when each job ended, what slots and GPUs were used, how often a task was taken away."""

    ended: dict[str, float] = field(default_factory=dict)
    used_s: float = 0.0
    gpu_hours: float = 0.0
    taken: int = 0

    @property
    def makespan_s(self) -> float:
        return max(self.ended.values(), default=0.0)

    def ready_s(self, job: JobLoad) -> float:
        """When what a job waits for was done."""
        return max((self.ended[name] for name in job.after if name in self.ended), default=0.0)


def study(
    jobs: Sequence[JobLoad], world: World, *, histories: int = HISTORIES, seed: int = 0
) -> list[Outcome]:
    """So many histories; one where there is no chance, fewer (but 15) of very many tasks."""
    chance = world.preempt_per_hour or world.doubt or any(job.straggle for job in jobs)
    num_tasks = max(1, sum(len(job.tasks) for job in jobs))
    times = min(histories, max(15, MAX_TASKS // num_tasks)) if chance else 1
    return [simulate(jobs, world, random.Random(f"{seed} {i}")) for i in range(times)]


def simulate(jobs: Sequence[JobLoad], world: World, rng: random.Random) -> Outcome:
    """One history: jobs begin in the order in which they could, each task where there is room first."""
    check(jobs, world)
    history, waiting = _History(world, rng), list[tuple[float, int]]()  # (when it may begin, number)
    number = {job.name: n for n, job in enumerate(jobs)}
    order = TopologicalSorter({job.name: number.keys() & set(job.after) for job in jobs})
    order.prepare()
    while order.is_active():
        for n in (number[name] for name in order.get_ready()):
            heapq.heappush(waiting, (history.out.ready_s(jobs[n]), n))
        ready_s, n = heapq.heappop(waiting)
        history.place(jobs[n], ready_s)
        order.done(jobs[n].name)
    return history.out


class _History:
    """One history while it is played: what has come of it, and until when each slot is held."""

    def __init__(self, world: World, rng: random.Random):
        self.world, self.rng, self.out = world, rng, Outcome()
        self.common = _factor(rng, world.doubt)
        self.slots = [0.0] * (world.slots or 0)

    def place(self, job: JobLoad, ready_s: float) -> None:
        """Give each task of a job the slots that are free first."""
        out, width, last_s = self.out, job.width, ready_s
        array = [0.0] * min(
            self.world.array_limit or len(job.tasks), len(job.tasks)
        )  # who holds it until when
        for task in job.tasks:
            slots = [heapq.heappop(self.slots) for _ in range(width if self.slots else 0)]
            begin_s = max(ready_s + job.wait_s, heapq.heappop(array), *slots)
            pace = self.common * _factor(self.rng, job.straggle)
            held_s, taken = _attempts(task, pace, self.world.preempt_per_hour * width / HOUR_S, self.rng)
            end_s = begin_s + held_s + taken * self.world.requeue_s
            for held in (array, *[self.slots] * len(slots)):
                heapq.heappush(held, end_s)
            out.used_s += held_s * width
            out.gpu_hours += held_s * job.gpus / HOUR_S
            out.taken += taken
            last_s = max(last_s, end_s)
        out.ended[job.name] = last_s


def _attempts(load: TaskLoad, pace: float, rate: float, rng: random.Random) -> tuple[float, int]:
    """Seconds of all attempts at a task, and how many were taken away, so often a second."""
    start_s, unit_s = load.start_s * pace, load.unit_s * pace
    stretch_s = max(1e-9, load.keep_every * unit_s + load.save_s)
    left, seconds, taken = load.units, 0.0, 0
    while True:
        whole_s = start_s + left * unit_s + load.saves(left) * load.save_s + load.end_s
        ends_s = rng.expovariate(rate) if rate else math.inf
        if ends_s >= whole_s:
            return seconds + whole_s, taken
        seconds, taken = seconds + ends_s, taken + 1
        kept = min(int(max(0.0, ends_s - start_s) / stretch_s), load.saves(left))
        left -= kept * load.keep_every


def _factor(rng: random.Random, sigma: float) -> float:
    return math.exp(rng.gauss(0.0, sigma)) if sigma else 1.0
