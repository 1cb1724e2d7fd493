"""Where jobs are played, and how often nodes are taken away there: as somebody says, or as the runs before
have seen. Pure.
"""

import random
from dataclasses import dataclass, replace

HOUR_S = 3600.0
PRIOR_TAKEN, PRIOR_HOURS = 0.1, 0.01  # of a Gamma distribution that says next to nothing: see `TakingRate`
DRAWS = 2001


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
        ranked = sorted(self.draw(rng) for _ in range(DRAWS))
        return ranked[DRAWS // 20], ranked[-DRAWS // 20]

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
    it, and `preempt_per_hour` is only the mean.
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

    def of_one_history(self, rng: random.Random, *, most: float) -> "World":
        """With a rate drawn from what was learned, up to `most`: the runs before it were done, after all."""
        if self.learned is None:
            return self
        return replace(self, preempt_per_hour=min(most, self.learned.draw(rng)), learned=None)
