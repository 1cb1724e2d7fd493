"""Planned against actual against lost: the forecast that was frozen at launch beside what the run's attempts
say.

Times of a job count from the end of the last job that it waited for, planned and actual alike. A sweep's
trial on Slurm waits for its turn, too: it is not held against its plan.
"""

from dataclasses import dataclass

from jobs.costs.accounting import Account, Cost, account
from jobs.costs.forecast import Forecast, JobForecast, frozen, length
from jobs.costs.simulate import Interval
from jobs.plan.chain import after_of
from jobs.runs.progress import span
from jobs.runs.queue import Journal
from serl.run.rundir import Run, RunError
from serl.stages.kind import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One job: `seconds` is None while it is not done, and in a lane."""

    name: str
    planned: JobForecast | None
    seconds: float | None
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Plan and outcome. `seconds`: from launch to the last manifest, if whole and not `laned`."""

    forecast: Forecast | None
    lines: tuple[Line, ...]
    seconds: float | None
    account: Account
    laned: bool

    @property
    def planned(self) -> Interval | None:
        return self.forecast.seconds if self.forecast else None

    def error(self) -> float | None:
        """By what share the planned median missed the actual time."""
        return self.planned.median / self.seconds - 1 if self.planned and self.seconds else None

    def sentence(self) -> str:
        """The verdict on the plan."""
        if self.forecast is None:
            return "No plan was frozen when this run was launched."
        if self.planned is None:
            nothing = "This run was launched without measurements to plan it from"
            return f"{nothing}; the next one on this cluster has them."
        told, error = f"Planned to take {length(self.planned)}", self.error()
        if self.laned:
            return f"{told} alone; it had to wait for its turn in the sweep."
        if error is None or self.seconds is None:
            return f"{told}; not done yet."
        how = f"the plan was {abs(error):.0%} too {'long' if error > 0 else 'short'}"
        held = "its interval held" if self.seconds in self.planned else "its interval did not hold"
        return f"{told}, took {span(self.seconds)}: {how}, and {held}."

    def facts(self) -> dict:
        """For --json: the account, and the plan beside it."""
        planned = [self.planned.low, self.planned.median, self.planned.high] if self.planned else None
        plan = {"planned_s": planned, "actual_s": self.seconds, "error": self.error()}
        return self.account.facts() | {"plan": plan}


def ledger(run: Run, *, live: bool = False) -> Ledger:
    """Everything that can be said now."""
    costs = account(run, live=live)
    made, forecast = frozen(run) or (None, None)
    ends = {s.job: end for s in run.config.stages if (end := _end(run, s)) is not None}
    planned = {j.name: j for j in forecast.jobs} if forecast else {}
    laned = bool(run.sweep and Journal(run.root))

    def seconds(stage: Stage) -> float | None:
        after = after_of(run.config, stage.round, stage.name)
        ready = [*(ends[n] for n in after if n in ends), *([made] if made else [])]
        known = stage.job in ends and ready and not laned
        return max(0.0, ends[stage.job] - max(ready)) if known else None

    lines = tuple(
        Line(name=s.job, planned=planned.get(s.job), seconds=seconds(s), cost=costs.costs[s.round, s.name])
        for s in run.config.stages
    )
    whole = len(ends) == len(lines) and made is not None and not laned
    took = max(0.0, max(ends.values()) - made) if whole else None
    return Ledger(forecast=forecast, lines=lines, seconds=took, account=costs, laned=laned)


def _end(run: Run, stage: Stage) -> float | None:
    """When its last manifest was published; None while one is missing, or damaged, which others say."""
    try:
        found = [run.manifest(s) for s in run.shards(stage.round, stage.name)]
    except RunError:
        return None
    return max(m.created for m in found if m) if all(found) else None
