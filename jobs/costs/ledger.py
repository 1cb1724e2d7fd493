"""Planned against actual, beside what was lost: the forecast that was frozen at launch, and what the run's
attempts say. A sweep's trial on Slurm waits for its turn, too: it is not held against its plan.
"""

from dataclasses import dataclass

from jobs.costs.accounting import Account, account
from jobs.costs.forecast import Forecast, frozen, length
from jobs.costs.simulate import Interval
from jobs.runs.progress import span
from jobs.runs.queue import Journal
from serl.run.rundir import Run, RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Plan and outcome. `seconds`: from launch to the last manifest, if whole and not `laned`."""

    forecast: Forecast | None
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
    made, forecast = frozen(run) or (None, None)
    laned = bool(run.sweep and Journal(run.root))
    ended = None if made is None or laned else _ended(run)
    return Ledger(
        forecast=forecast,
        seconds=max(0.0, ended - made) if ended else None,
        account=account(run, live=live),
        laned=laned,
    )


def _ended(run: Run) -> float | None:
    """When its last manifest was published; None while one is missing, or damaged, which others say."""
    try:
        found = [run.manifest(s) for stage in run.config.stages for s in run.shards(stage.round, stage.name)]
    except RunError:
        return None
    return max(m.created for m in found if m) if all(found) else None
