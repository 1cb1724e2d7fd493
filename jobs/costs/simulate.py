"""A chain of jobs played out by chance: slots, array limits, queues, preemption, stragglers. Pure: the same seed, the same outcome.

A task makes itself ready, works in equal units, keeps its work every few of them, and ends. A preemption comes as a Poisson process on each
slot that the task holds; what is not kept by then is done again, by an attempt that has to make itself ready anew.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.costs.tasks import JobLoad, TaskLoad, bearable_per_hour, num_saves
from jobs.costs.weather import HOUR_S, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One history. Seconds of slots: `used` in all, of it `lost` work that was done again and start-ups that were `repeated`."""

    makespan_s: float
    used_s: float
    lost_s: float
    repeated_s: float
    preemptions: int
    began: Mapping[str, float]
    ended: Mapping[str, float]


@dataclass(slots=True)
class _Running:
    job: int
    task: int
    kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """How one attempt goes: seconds it holds its slots, units kept in the end, and what of its time was for nothing."""

    seconds: float
    kept: float
    done: bool
    lost_s: float
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
                f"{job.name}: one task needs {job.width} slots, and there are {world.slots}; give it more nodes, or fewer to the task"
            )
        if (
            world.preempt_per_hour
            and world.learned is None
            and world.preempt_per_hour > (most := bearable_per_hour([job]))
        ):
            raise ValueError(
                f"{job.name}: a node taken away {world.preempt_per_hour:g} times an hour would hardly ever be done with a stretch of its work; "
                f"at most {most:.3g} times can be borne: keep work more often, by smaller parts or a smaller checkpoint interval"
            )


class _History:
    """One history while it is played: who waits for what, who is ready, who runs, and what will end when."""

    def __init__(self, jobs: Sequence[JobLoad], world: World, rng: random.Random):
        self.jobs, self.rng = jobs, rng
        self.world = (
            world if world.learned is None else world.of_one_history(rng, most=bearable_per_hour(jobs))
        )
        common = _factor(rng, world.doubt)
        self.paces = [
            (common * _factor(rng, job.spread), common * _factor(rng, job.start_spread)) for job in jobs
        ]
        self.waits = [job.wait_s * _factor(rng, job.wait_spread) for job in jobs]
        self.left = [len(job.tasks) for job in jobs]
        self.running = [0] * len(jobs)
        self.ready: list[deque[_Running]] = [deque() for _ in jobs]
        self.free = math.inf if world.slots is None else world.slots
        here = {job.name for job in jobs}
        self.waits_for = [{name for name in job.after if name in here} for job in jobs]
        self.heirs: dict[str, list[int]] = {}
        for j, names in enumerate(self.waits_for):
            for name in names:
                self.heirs.setdefault(name, []).append(j)
        self.events: list[tuple[float, int, _Running, _Attempt | None]] = []
        self.now = self.used_s = self.lost_s = self.repeated_s = 0.0
        self.number = self.preemptions = 0
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.disturbed: set[str] = set()

    def play(self) -> Outcome:
        for j in [j for j, names in enumerate(self.waits_for) if not names]:
            self._release(j)
        while self.events:
            self.now, _, task, attempt = heapq.heappop(self.events)
            if attempt is None:
                self.ready[task.job].append(task)
            else:
                self._end(task, attempt)
            if (
                not self.events or self.events[0][0] > self.now
            ):  # everything of one moment first, then who may start
                self._start()
        return Outcome(
            makespan_s=max(self.ended.values(), default=0.0), used_s=self.used_s, lost_s=self.lost_s, repeated_s=self.repeated_s,
            preemptions=self.preemptions, began=self.began, ended=self.ended,
        )  # fmt: skip

    def _push(self, at: float, task: _Running, attempt: _Attempt | None = None) -> None:
        self.number += 1
        heapq.heappush(self.events, (at, self.number, task, attempt))

    def _release(self, j: int) -> None:
        """What the job waited for is done."""
        if not self.left[j]:
            self._finish(j)
        early = self.world.requeue_s if self.disturbed & set(self.jobs[j].after) else 0.0
        for t in range(len(self.jobs[j].tasks)):
            self._push(
                self.now + self._wait(j) + self.rng.uniform(0.0, early), _Running(job=j, task=t, kept=0.0)
            )

    def _finish(self, j: int) -> None:
        name = self.jobs[j].name
        self.ended[name] = self.now
        for heir in self.heirs.get(name, ()):
            self.waits_for[heir].discard(name)
            if not self.waits_for[heir]:
                self._release(heir)

    def _start(self) -> None:
        """Whatever fits, in the order of the jobs."""
        limit = math.inf if self.world.array_limit is None else self.world.array_limit
        for j, waiting in enumerate(self.ready):
            job = self.jobs[j]
            while waiting and job.width <= self.free and self.running[j] < limit:
                task = waiting.popleft()
                self.free -= job.width
                self.running[j] += 1
                self.began.setdefault(job.name, self.now)
                own = _factor(self.rng, math.hypot(self.world.straggle, job.straggle))
                pace, start_pace = self.paces[j]
                attempt = attempt_of(
                    job.tasks[task.task],
                    task.kept,
                    self.world,
                    job.width,
                    self.rng,
                    pace=pace * own,
                    start_pace=start_pace * own,
                )
                self._push(self.now + attempt.seconds, task, attempt)

    def _end(self, task: _Running, attempt: _Attempt) -> None:
        """Of all start-ups of a task the last one is its own; an attempt that does not finish has made its own for nothing."""
        j, job = task.job, self.jobs[task.job]
        self.free += job.width
        self.running[j] -= 1
        self.used_s += attempt.seconds * job.width
        self.lost_s += attempt.lost_s * job.width
        self.repeated_s += attempt.repeated_s * job.width
        self.preemptions += not attempt.done
        task.kept = attempt.kept
        if not attempt.done:
            self.disturbed.add(job.name)
            self._push(self.now + self.world.requeue_s + self._wait(j), task)
            return
        self.left[j] -= 1
        if not self.left[j]:
            self._finish(j)

    def _wait(self, j: int) -> float:
        return self.waits[j] + (
            self.rng.expovariate(1 / self.world.queue_wait_s) if self.world.queue_wait_s else 0.0
        )


def attempt_of(
    load: TaskLoad,
    kept: float,
    world: World,
    width: int,
    rng: random.Random,
    *,
    pace: float = 1.0,
    start_pace: float = 1.0,
) -> _Attempt:
    """One attempt that begins with `kept` units done; the paces stretch its units and its start-up."""
    unit_s, start_s = max(1e-9, load.unit_s * pace), load.start_s * start_pace
    chunk_s = load.keep_every * unit_s + load.save_s
    left = max(0.0, load.units - kept)
    whole_s = start_s + left * unit_s + num_saves(load, left) * load.save_s + load.end_s
    rate = world.preempt_per_hour / HOUR_S * width
    ends_s = rng.expovariate(rate) if rate else math.inf
    if ends_s >= whole_s:
        return _Attempt(seconds=whole_s, kept=load.units, done=True, lost_s=0.0)
    worked_s = ends_s - start_s
    if worked_s <= 0.0:
        return _Attempt(seconds=ends_s, kept=kept, done=False, lost_s=0.0, repeated_s=ends_s)
    chunks = min(int(worked_s / chunk_s), num_saves(load, left))
    kept += chunks * load.keep_every
    since_s = worked_s - chunks * chunk_s
    units = min(math.ceil(since_s / unit_s), load.keep_every, load.units - kept)
    last = kept + units >= load.units
    needs_s = max(
        0.0,
        units * unit_s - since_s + load.end_s if last else max(0.0, units * unit_s - since_s) + load.save_s,
    )
    if (
        0.0 < needs_s <= world.grace_s
    ):  # to the end of the unit that is at work, and a save; the last one is published
        return _Attempt(
            seconds=ends_s + needs_s,
            kept=kept + units,
            done=last,
            lost_s=0.0,
            repeated_s=0.0 if last else start_s,
        )
    return _Attempt(seconds=ends_s, kept=kept, done=False, lost_s=since_s, repeated_s=start_s)


def _factor(rng: random.Random, sigma: float) -> float:
    return math.exp(rng.gauss(0.0, sigma)) if sigma else 1.0


# ------------------------------------------------------------------------------------------------ many histories
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
        return quantile(
            [
                o.ended[job.name] - max((o.ended[n] for n in job.after if n in o.ended), default=0.0)
                for o in self.outcomes
            ],
            share,
        )


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
    place = share * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])
