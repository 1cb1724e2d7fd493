"""A chain of jobs played out by chance: slots, array limits, queues, preemption, stragglers. Pure: the same
seed, the same outcome.

A task makes itself ready, works in equal units, keeps its work every few of them, and ends. A preemption
comes as a Poisson process on each slot that the task holds; what is not kept by then is done again, by an
attempt that has to make itself ready anew.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.costs.tasks import JobLoad, TaskLoad, bearable_per_hour
from jobs.costs.weather import HOUR_S, World


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One history. Seconds of slots: of all `used`, work `lost` and done again, and start-ups `repeated`."""

    makespan_s: float = 0.0
    used_s: float = 0.0
    lost_s: float = 0.0
    repeated_s: float = 0.0
    preemptions: int = 0
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """How one attempt goes: seconds it holds its slots, units kept in the end, and what was for nothing."""

    seconds: float
    kept: float
    done: bool = False
    lost_s: float = 0.0
    repeated_s: float = 0.0


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


class _History:
    """One history while it is played: who waits for what, who is ready, who runs, and what will end when."""

    def __init__(self, jobs: Sequence[JobLoad], world: World, rng: random.Random):
        self.jobs, self.rng, self.now, self.out = jobs, rng, 0.0, Outcome()
        self.world = world.of_one_history(rng, most=bearable_per_hour(jobs)) if world.learned else world
        common = _factor(rng, world.doubt)
        self.paces = [(common * _factor(rng, j.spread), common * _factor(rng, j.start_spread)) for j in jobs]
        self.waits = [job.wait_s * _factor(rng, job.wait_spread) for job in jobs]
        self.kept = [[0.0] * len(job.tasks) for job in jobs]  # units of each task
        self.left = [len(job.tasks) for job in jobs]
        self.running = [0] * len(jobs)
        self.ready: list[deque[int]] = [deque() for _ in jobs]
        self.free = math.inf if world.slots is None else world.slots
        here = {job.name for job in jobs}
        self.waits_for = [{name for name in job.after if name in here} for job in jobs]
        self.heirs: dict[str, list[int]] = {}
        for j, names in enumerate(self.waits_for):
            for name in names:
                self.heirs.setdefault(name, []).append(j)
        self.events: list[tuple[float, int, int, int, _Attempt | None]] = []
        self.number = 0
        self.disturbed: set[str] = set()

    def play(self) -> Outcome:
        for j in [j for j, names in enumerate(self.waits_for) if not names]:
            self._release(j)
        while self.events:
            self.now, _, j, task, attempt = heapq.heappop(self.events)
            if attempt is None:
                self.ready[j].append(task)
            else:
                self._end(j, task, attempt)
            if not self.events or self.events[0][0] > self.now:  # all of one moment first, then who may start
                self._start()
        self.out.makespan_s = max(self.out.ended.values(), default=0.0)
        return self.out

    def _push(self, in_s: float, j: int, task: int, attempt: _Attempt | None = None) -> None:
        self.number += 1
        heapq.heappush(self.events, (self.now + in_s, self.number, j, task, attempt))

    def _release(self, j: int) -> None:
        """What the job waited for is done."""
        if not self.left[j]:
            self._finish(j)
        early = self.world.requeue_s if self.disturbed & set(self.jobs[j].after) else 0.0
        for task in range(len(self.jobs[j].tasks)):
            self._push(self._wait(j) + self.rng.uniform(0.0, early), j, task)

    def _finish(self, j: int) -> None:
        name = self.jobs[j].name
        self.out.ended[name] = self.now
        for heir in self.heirs.get(name, ()):
            self.waits_for[heir].discard(name)
            if not self.waits_for[heir]:
                self._release(heir)

    def _start(self) -> None:
        """Whatever fits, in the order of the jobs."""
        limit = math.inf if self.world.array_limit is None else self.world.array_limit
        for j, (job, waiting) in enumerate(zip(self.jobs, self.ready)):
            while waiting and job.width <= self.free and self.running[j] < limit:
                task = waiting.popleft()
                self.free -= job.width
                self.running[j] += 1
                self.out.began.setdefault(job.name, self.now)
                own = _factor(self.rng, math.hypot(self.world.straggle, job.straggle))
                paces = tuple(own * pace for pace in self.paces[j])
                attempt = _attempt(
                    job.tasks[task], self.kept[j][task], self.world, job.width, paces, self.rng
                )
                self._push(attempt.seconds, j, task, attempt)

    def _end(self, j: int, task: int, attempt: _Attempt) -> None:
        """Of a task's start-ups the last is its own; an attempt that does not finish made its own for
        nothing.
        """
        job, out = self.jobs[j], self.out
        self.free += job.width
        self.running[j] -= 1
        out.used_s += attempt.seconds * job.width
        out.lost_s += attempt.lost_s * job.width
        out.repeated_s += attempt.repeated_s * job.width
        self.kept[j][task] = attempt.kept
        if attempt.done:
            self.left[j] -= 1
            if not self.left[j]:
                self._finish(j)
        else:
            out.preemptions += 1
            self.disturbed.add(job.name)
            self._push(self.world.requeue_s + self._wait(j), j, task)

    def _wait(self, j: int) -> float:
        mean = self.world.queue_wait_s
        return self.waits[j] + (self.rng.expovariate(1 / mean) if mean else 0.0)


def _attempt(
    load: TaskLoad, kept: float, world: World, width: int, paces: tuple[float, ...], rng: random.Random
) -> _Attempt:
    """One attempt that begins with `kept` units done; the paces stretch its units and its start-up."""
    unit_s, start_s = max(1e-9, load.unit_s * paces[0]), load.start_s * paces[1]
    left = max(0.0, load.units - kept)
    whole_s = start_s + left * unit_s + load.saves(left) * load.save_s + load.end_s
    rate = world.preempt_per_hour / HOUR_S * width
    ends_s = rng.expovariate(rate) if rate else math.inf
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
    if (
        0.0 < needs_s <= world.grace_s
    ):  # to the end of the unit at work, and a save; the last one is published
        repeated_s = 0.0 if last else start_s
        return _Attempt(seconds=ends_s + needs_s, kept=kept + units, done=last, repeated_s=repeated_s)
    return _Attempt(seconds=ends_s, kept=kept, lost_s=since_s, repeated_s=start_s)


def _factor(rng: random.Random, sigma: float) -> float:
    return math.exp(rng.gauss(0.0, sigma)) if sigma else 1.0


# ------------------------------------------------------------------------------------ many histories
@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Many histories of the same jobs in the same world."""

    outcomes: tuple[Outcome, ...]

    def quantile(self, share: float, of: str = "makespan_s") -> float:
        return quantile([getattr(o, of) for o in self.outcomes], share)

    def mean(self, of: str) -> float:
        return sum(getattr(o, of) for o in self.outcomes) / len(self.outcomes)

    def span(self, job: JobLoad, share: float) -> float:
        """From the end of what a job waits for to its own end."""
        ready = [max((o.ended[n] for n in job.after if n in o.ended), default=0.0) for o in self.outcomes]
        return quantile([o.ended[job.name] - r for o, r in zip(self.outcomes, ready)], share)


def study(
    jobs: Sequence[JobLoad], world: World, *, histories: int = 200, seed: int = 0, max_tasks: int = 200_000
) -> Study:
    """`histories` of them, or fewer where the chain is large (but 15): `max_tasks` tasks in all."""
    num_tasks = max(1, sum(len(job.tasks) for job in jobs))
    times = 1 if _certain(jobs, world) else min(histories, max(15, max_tasks // num_tasks))
    return Study(outcomes=tuple(simulate(jobs, world, random.Random(f"{seed} {i}")) for i in range(times)))


def _certain(jobs: Sequence[JobLoad], world: World) -> bool:
    chance = any(job.spread or job.straggle or job.start_spread or job.wait_spread for job in jobs)
    return not (chance or world.preempt_per_hour or world.queue_wait_s or world.straggle or world.doubt)


def quantile(values: Sequence[float], share: float) -> float:
    """Between the two nearest values, in proportion."""
    ranked = sorted(values)
    low, part = divmod(share * (len(ranked) - 1), 1)
    low, high = int(low), min(int(low) + 1, len(ranked) - 1)
    return ranked[low] + part * (ranked[high] - ranked[low])
