"""Planned against actual against lost, for the report: the forecast that was frozen at launch beside what the run's attempts say.

Times of a job count from the end of the last job that it waited for, planned and actual alike. A sweep's trial on Slurm waits for its turn too,
and for stages that other trials compute: of it, the jobs that wait for its own alone are compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs.chain.queue import Journal
from jobs.costs.accounting import Account, Cost, account, duration
from jobs.costs.forecast import Forecast, JobForecast, frozen, span
from jobs.costs.sacct import ask_sacct
from jobs.plan.chain import after_of, job_name, steps
from jobs.reporting.render import Block, Paragraph, Table
from serl.run.rundir import Run, RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One job: `seconds` is None while it is not done."""

    name: str
    planned: JobForecast | None
    seconds: float | None
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A run's plan and what became of it. `seconds` is from launch to the last manifest, None while something is missing, or in lanes (`laned`)."""

    forecast: Forecast | None
    lines: tuple[Line, ...]
    seconds: float | None
    account: Account
    laned: bool

    def error(self) -> float | None:
        """By what share the planned median missed the actual time."""
        planned = self.forecast.seconds if self.forecast else None
        return planned.median / self.seconds - 1 if planned and self.seconds else None

    def sentence(self) -> str:
        """The verdict on the plan."""
        planned = self.forecast.seconds if self.forecast else None
        if self.forecast is None:
            return "No plan was frozen when this run was launched."
        if planned is None:
            return "This run was launched without measurements to plan it from; the next one on this cluster has them."
        if self.laned:
            return f"Planned to take {span(planned)} alone; it had to wait for its turn in the sweep, so only its jobs are held against the plan."
        if self.seconds is None:
            return f"Planned to take {span(planned)}; not done yet."
        error = self.error() or 0.0
        how = f"the plan was {abs(error):.0%} too {'long' if error > 0 else 'short'}"
        held = "its interval held" if self.seconds in planned else "its interval did not hold"
        return f"Planned to take {span(planned)}, took {duration(self.seconds)}: {how}, and {held}."


def ledger(run: Run, *, live: bool = False) -> Ledger:
    """Everything that can be said now; asks Slurm's accounts once where the run has jobs there."""
    costs = account(run, live=live, slurm=ask_sacct)
    kept = frozen(run)
    made, forecast = kept if kept else (None, None)
    ends = {job_name(*key): end for key in steps(run.config) if (end := _end(run, *key)) is not None}
    planned = {j.name: j for j in forecast.jobs} if forecast else {}
    lines = tuple(_line(run, round, stage, ends, planned, made, costs) for round, stage in steps(run.config))
    laned = _laned(run)
    seconds = (
        max(ends.values()) - made
        if len(ends) == len(lines) and ends and made is not None and not laned
        else None
    )
    return Ledger(forecast=forecast, lines=lines, seconds=seconds, account=costs, laned=laned)


def _laned(run: Run) -> bool:
    return bool(run.sweep and Journal(run.root))


def _line(
    run: Run,
    round: int,
    stage: str,
    ends: Mapping[str, float],
    planned: Mapping[str, JobForecast],
    made: float | None,
    costs: Account,
) -> Line:
    name = job_name(round, stage)
    after = after_of(run.config, round, stage)
    before = [ends[n] for n in after if n in ends]
    ready = max([*before, *([made] if made else [])], default=None)
    if _laned(run) and not set(after) - run.shared.keys():
        ready = None
    seconds = max(0.0, ends[name] - ready) if name in ends and ready is not None else None
    return Line(
        name=name, planned=planned.get(name), seconds=seconds, cost=costs.costs.get((round, stage), Cost())
    )


def _end(run: Run, round: int, stage: str) -> float | None:
    """When a stage's last manifest was published; None while one is missing, or where one is damaged, which the report says elsewhere."""
    try:
        found = [run.manifest(s) for s in run.shards(round, stage)]
    except RunError:
        return None
    return max(m.created for m in found if m) if all(found) else None


def cost_blocks(run: Run) -> Iterator[Block]:
    """What the report says of a run's cost."""
    book = ledger(run)
    total = book.account.total
    if not total.attempts:
        return
    gpus = bool(total.gpu_hours)
    yield Paragraph(f"{book.sentence()} In all {book.account.sentence()}.")
    header = [
        "job",
        "planned [90 %], s",
        "actual, s",
        "tasks used, s",
        "lost, s",
        "why",
        *(["GPU-hours", "lost"] if gpus else []),
    ]
    rows = [
        _row(line.name, line.planned, line.seconds, line.cost, gpus=gpus)
        for line in book.lines
        if line.cost.attempts or line.planned
    ]
    yield Table(
        header=header,
        rows=[*rows, _row("all", None, book.seconds, total, gpus=gpus)],
        numeric=frozenset(range(1, len(header))) - {5},
    )
    source = (
        "Slurm's accounts and the attempts' own events"
        if book.account.by_slurm
        else "the attempts' own events"
    )
    yield Paragraph(
        f"Lost is what had to be done again: work of an attempt that no part or checkpoint kept, and start-ups of attempts that did not finish. From {source}"
        + (f"; waited in the queue {duration(total.wait_s)}." if total.wait_s else "."), "note"
    )  # fmt: skip


def _row(
    name: str, planned: JobForecast | None, seconds: float | None, cost: Cost, *, gpus: bool
) -> list[str]:
    told = (
        f"{planned.seconds.median:.0f} [{planned.seconds.low:.0f}, {planned.seconds.high:.0f}]"
        if planned
        else ""
    )
    why = ", ".join(
        f"{cause} {s:.0f}" for cause, s in sorted(cost.lost_s.items(), key=lambda item: -item[1]) if s >= 0.5
    )
    cells = [
        name,
        told,
        "" if seconds is None else f"{seconds:.0f}",
        f"{cost.used_s:.0f}",
        f"{cost.all_lost_s:.0f}",
        why,
    ]
    return cells + ([f"{cost.gpu_hours:.2f}", f"{sum(cost.lost_gpu_hours.values()):.2f}"] if gpus else [])


def facts(book: Ledger) -> dict:
    """For --json: the account, and the plan beside it."""
    planned = book.forecast.seconds if book.forecast else None
    plan: dict[str, object] = {"planned_s": None, "actual_s": book.seconds, "error": book.error()}
    if planned:
        plan |= {"planned_s": [planned.low, planned.median, planned.high]}
    return book.account.facts() | {"plan": plan}
