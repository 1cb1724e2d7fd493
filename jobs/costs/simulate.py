"""A chain of jobs played out by chance: slots, array limits, queues, preemption, stragglers. Pure: the same
seed, the same outcome.

A task makes itself ready, works in equal units, keeps its work every few of them, and ends. A preemption
comes as a Poisson process on each slot that the task holds; what is not kept by then is done again, by an
attempt that has to make itself ready anew.
"""

import heapq
import math
import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jobs.costs.tasks import HOUR_S, JobLoad, TaskLoad, World, bearable_per_hour


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One history. Seconds of slots: of all `used`, work `lost` and done again, start-ups `repeated`."""

    makespan_s: float = 0.0
    used_s: float = 0.0
    gpu_hours: float = 0.0
    lost_s: float = 0.0
    repeated_s: float = 0.0
    preemptions: int = 0
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)


def simulate(jobs: Sequence[JobLoad], world: World, rng: random.Random) -> Outcome:
    """One history of `jobs`, which are started in their order wherever there is room."""
    check(jobs, world)
    return _History(jobs, world, rng).play()


def check(jobs: Sequence[JobLoad], world: World) -> None:
    """Raises ValueError for a chain that could never run, or would hardly ever be done."""
    for job in jobs:
        if world.slots is not None and job.width > world.slots:
            raise ValueError(
                f"{job.name}: one task needs {job.width} slots, and there are {world.slots}; give it more "
                "nodes, or fewer to the task"
            )
        if world.learned is None and world.preempt_per_hour > (most := bearable_per_hour([job])):
            raise ValueError(
                f"{job.name}: a node taken away {world.preempt_per_hour:g} times an hour would hardly ever "
                f"be done with a stretch of its work; at most {most:.3g} times can be borne: keep work more "
                "often, by smaller parts or a smaller checkpoint interval"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """How one attempt goes: seconds it holds its slots, units kept in the end, and what was for nothing."""

    seconds: float
    kept: float
    done: bool = False
    lost_s: float = 0.0
    repeated_s: float = 0.0


class _Job:
    """A job in one history: its chances, which tasks are ready, and what of each is kept."""

    def __init__(self, load: JobLoad, common: float, rng: random.Random):
        self.load, self.after = load, set[str]()
        self.pace = common * _factor(rng, load.spread)
        self.kept = [0.0] * len(load.tasks)  # units of each task
        self.left, self.running, self.ready = len(load.tasks), 0, deque[int]()


class _History:
    """One history while it is played: who waits for what, and what will happen when."""

    def __init__(self, jobs: Sequence[JobLoad], world: World, rng: random.Random):
        self.world, self.rng, self.now, self.out = world, rng, 0.0, Outcome()
        self.per_hour = world.preempt_per_hour
        if world.learned:
            self.per_hour = min(bearable_per_hour(jobs), world.learned.draw(rng))
        common = _factor(rng, world.doubt)
        self.jobs = [_Job(load, common, rng) for load in jobs]
        self.free = math.inf if world.slots is None else world.slots
        self.disturbed: set[str] = set()
        self.events: list[tuple[float, int, _Job, int, _Attempt | None]] = []
        self.number = 0
        here = {load.name for load in jobs}
        self.heirs: dict[str, list[_Job]] = defaultdict(list)
        for job in self.jobs:
            job.after = here.intersection(job.load.after)
            for name in job.after:
                self.heirs[name].append(job)

    def play(self) -> Outcome:
        for job in [job for job in self.jobs if not job.after]:
            self._release(job)
        while self.events:
            self.now, _, job, task, attempt = heapq.heappop(self.events)
            if attempt is None:
                job.ready.append(task)
            else:
                self._end(job, task, attempt)
            if not self.events or self.events[0][0] > self.now:  # all of one moment first, then who may start
                self._start()
        self.out.makespan_s = max(self.out.ended.values(), default=0.0)
        return self.out

    def _push(self, in_s: float, job: _Job, task: int, attempt: _Attempt | None = None) -> None:
        self.number += 1
        heapq.heappush(self.events, (self.now + in_s, self.number, job, task, attempt))

    def _queue(self, job: _Job, task: int, in_s: float) -> None:
        """Ready after that, and what it waits in the queue."""
        mean_s = self.world.queue_wait_s
        self._push(in_s + job.load.wait_s + (self.rng.expovariate(1 / mean_s) if mean_s else 0.0), job, task)

    def _release(self, job: _Job) -> None:
        """What the job waited for is done."""
        if not job.left:
            self._finish(job)
        early_s = self.world.requeue_s if self.disturbed & set(job.load.after) else 0.0
        for task in range(job.left):
            self._queue(job, task, self.rng.uniform(0.0, early_s))

    def _finish(self, job: _Job) -> None:
        self.out.ended[job.load.name] = self.now
        for heir in self.heirs[job.load.name]:
            heir.after.discard(job.load.name)
            if not heir.after:
                self._release(heir)

    def _start(self) -> None:
        """Whatever fits, in the order of the jobs."""
        limit = math.inf if self.world.array_limit is None else self.world.array_limit
        for job in self.jobs:
            while job.ready and job.load.width <= self.free and job.running < limit:
                task = job.ready.popleft()
                self.free -= job.load.width
                job.running += 1
                self.out.began.setdefault(job.load.name, self.now)
                attempt = self._attempt(job, job.load.tasks[task], job.kept[task])
                self._push(attempt.seconds, job, task, attempt)

    def _end(self, job: _Job, task: int, attempt: _Attempt) -> None:
        """Of a task's start-ups the last is its own; who does not finish made his own for nothing."""
        out, width = self.out, job.load.width
        self.free += width
        job.running -= 1
        out.used_s += attempt.seconds * width
        out.gpu_hours += attempt.seconds * job.load.gpus / 3600
        out.lost_s += attempt.lost_s * width
        out.repeated_s += attempt.repeated_s * width
        job.kept[task] = attempt.kept
        if not attempt.done:
            out.preemptions += 1
            self.disturbed.add(job.load.name)
            self._queue(job, task, self.world.requeue_s)
            return
        job.left -= 1
        if not job.left:
            self._finish(job)

    def _attempt(self, job: _Job, load: TaskLoad, kept: float) -> _Attempt:
        """One attempt at a task of which `kept` units are done."""
        own = _factor(self.rng, math.hypot(self.world.straggle, job.load.straggle))
        unit_s, start_s = max(1e-9, load.unit_s * own * job.pace), load.start_s * own * job.pace
        left = max(0.0, load.units - kept)
        whole_s = start_s + left * unit_s + load.saves(left) * load.save_s + load.end_s
        rate = self.per_hour / HOUR_S * job.load.width
        ends_s = self.rng.expovariate(rate) if rate else math.inf
        if ends_s >= whole_s:
            return _Attempt(seconds=whole_s, kept=load.units, done=True)
        if ends_s <= start_s:
            return _Attempt(seconds=ends_s, kept=kept, repeated_s=ends_s)
        chunk_s = load.keep_every * unit_s + load.save_s
        chunks = min(int((ends_s - start_s) / chunk_s), load.saves(left))
        kept += chunks * load.keep_every
        since_s = ends_s - start_s - chunks * chunk_s
        units = min(math.ceil(since_s / unit_s), load.keep_every, load.units - kept)
        last, rest_s = kept + units >= load.units, units * unit_s - since_s
        needs_s = max(0.0, rest_s + load.end_s) if last else max(0.0, rest_s) + load.save_s
        if 0.0 < needs_s <= self.world.grace_s:  # the unit at work ends and is kept, or published
            again_s = 0.0 if last else start_s
            return _Attempt(seconds=ends_s + needs_s, kept=kept + units, done=last, repeated_s=again_s)
        return _Attempt(seconds=ends_s, kept=kept, lost_s=since_s, repeated_s=start_s)


def _factor(rng: random.Random, sigma: float) -> float:
    return math.exp(rng.gauss(0.0, sigma)) if sigma else 1.0


# ------------------------------------------------------------------------------------ many histories
@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Many histories of the same jobs in the same world."""

    outcomes: tuple[Outcome, ...]

    def quantile(self, share: float, of: str = "makespan_s") -> float:
        return float(np.quantile([getattr(o, of) for o in self.outcomes], share))

    def mean(self, of: str) -> float:
        return sum(getattr(o, of) for o in self.outcomes) / len(self.outcomes)

    def span(self, job: JobLoad, share: float) -> float:
        """From the end of what a job waits for to its own end."""
        ready = [max((o.ended[n] for n in job.after if n in o.ended), default=0.0) for o in self.outcomes]
        return float(np.quantile([o.ended[job.name] - r for o, r in zip(self.outcomes, ready)], share))


def study(
    jobs: Sequence[JobLoad], world: World, *, histories: int = 200, seed: int = 0, max_tasks: int = 200_000
) -> Study:
    """`histories` of them, one where there is no chance, fewer (but 15) for more than `max_tasks` in all."""
    chance = world.preempt_per_hour or world.queue_wait_s or world.straggle or world.doubt
    chance = chance or any(job.spread or job.straggle for job in jobs)
    num_tasks = max(1, sum(len(job.tasks) for job in jobs))
    times = min(histories, max(15, max_tasks // num_tasks)) if chance or world.learned else 1
    return Study(outcomes=tuple(simulate(jobs, world, random.Random(f"{seed} {i}")) for i in range(times)))
