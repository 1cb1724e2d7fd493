"""Jobs as the simulator sees them, the world that they are played in, and what preemption costs a task on
average, which theory tells without playing it. Pure.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HOUR_S = 3600.0
MAX_TRIES = 1000.0
PRIOR_TAKEN, PRIOR_HOURS = 0.1, 0.01  # of a Gamma distribution that says next to nothing: see `TakingRate`


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
    def stretch_s(self) -> float:
        """The longest work between two saves."""
        return min(self.units, self.keep_every) * self.unit_s + max(self.save_s, self.end_s)

    def saves(self, units: float) -> int:
        return max(0, math.ceil(units / self.keep_every - 1e-9) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLoad:
    """The tasks of one stage and round, the jobs they wait for, how long each waits in the queue then, and
    the slots and GPUs that each holds.

    Log-normal sigmas say how sure the pace is, of all tasks together (`spread`) and of each (`straggle`).
    """

    name: str
    tasks: tuple[TaskLoad, ...]
    after: tuple[str, ...] = ()
    width: int = 1
    gpus: int = 0
    wait_s: float = 0.0
    spread: float = 0.0
    straggle: float = 0.0

    @property
    def seconds(self) -> float:
        """Of all tasks together."""
        return sum(t.seconds for t in self.tasks)


# ------------------------------------------------------------------------------------------ the world
@dataclass(frozen=True, slots=True, kw_only=True)
class TakingRate:
    """How often an hour of a node ends with its being taken away, as far as `taken` times in `node_hours`
    tell: a Gamma distribution.

    Its prior weighs so little that five takings in three hours are 1.7 an hour. Where none was seen, as long
    a time again goes without one in 93 of 100 cases. It knows nothing of bad weeks: chance in hours is
    Poisson's, the rate the same for ever.
    """

    taken: int
    node_hours: float

    @property
    def mean(self) -> float:
        return (PRIOR_TAKEN + self.taken) / (PRIOR_HOURS + self.node_hours)

    def draw(self, rng: random.Random) -> float:
        return rng.gammavariate(PRIOR_TAKEN + self.taken, 1 / (PRIOR_HOURS + self.node_hours))

    def interval(self) -> tuple[float, float]:
        """The ends of a 90 % interval."""
        rng = random.Random(0)
        low, high = np.quantile([self.draw(rng) for _ in range(2001)], (0.05, 0.95))
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.mean:.2g} times an hour [{low:.2g}, {high:.2g}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where the jobs run. None: no bound.

    A preempted task has `grace_s` to reach a safe point and keep what it has, and may start again after
    `requeue_s`; so may a job that was let in when its predecessor was requeued, looked too early and went
    back to the queue. `queue_wait_s` is the mean of an exponential wait before each start, `straggle` the
    log-normal sigma of one attempt's pace, and `doubt` that of a factor common to everything, for what the
    figures themselves may be wrong by. Where `learned` is given, each history draws its preemption rate from
    it, up to what can be borne (the runs before were done, after all); `preempt_per_hour` is only the mean.
    """

    slots: int | None = None
    array_limit: int | None = None
    preempt_per_hour: float = 0.0
    learned: TakingRate | None = None
    grace_s: float = 0.0
    requeue_s: float = 0.0
    queue_wait_s: float = 0.0
    straggle: float = 0.0
    doubt: float = 0.0


# --------------------------------------------------------------------------------------------- theory
def expected_s(load: TaskLoad, preempt_per_hour: float) -> float:
    """Mean seconds that the attempts of one task take together, without grace: each stretch between saves is
    a race against a Poisson process.

    A stretch c that follows a kept one takes e^(ls) (e^(lc) - 1) / l on average, where l is the rate and s
    the start-up that each failure costs (Daly 2006); the first start-up takes (e^(ls) - 1) / l.
    """
    rate = preempt_per_hour / HOUR_S
    if not rate:
        return load.seconds
    saves = load.saves(load.units)
    stretch_s = load.keep_every * load.unit_s + load.save_s
    last_s = (load.units - saves * load.keep_every) * load.unit_s + load.end_s
    restart = math.exp(min(700.0, rate * load.start_s))
    grown = saves * math.expm1(min(700.0, rate * stretch_s)) + math.expm1(min(700.0, rate * last_s))
    return (restart - 1) / rate + restart * grown / rate


def daly_interval_s(save_s: float, preempt_per_hour: float) -> float:
    """Work between saves that costs least, to first order: sqrt(2 x save x time to a taking) (Young 1974)."""
    return math.sqrt(2 * save_s * HOUR_S / preempt_per_hour)


def bearable_per_hour(jobs: Sequence[JobLoad]) -> float:
    """The preemption rate at which the longest stretch is begun `MAX_TRIES` times on average until kept."""
    loads = {(load, job.width) for job in jobs for load in job.tasks}
    longest_s = max((width * (load.start_s + load.stretch_s) for load, width in loads), default=0.0)
    return math.log(MAX_TRIES) * HOUR_S / longest_s if longest_s else math.inf
