"""When a plan would be done and what it would use: learned costs put into the simulator, with intervals.

Where nothing was measured there is no forecast, only the bounds of `jobs.plan.chain`. The forecast of a run
is frozen in its folder before its first job, so that planned and actual can be compared honestly afterwards
(`ledger`).
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from jobs.costs.calibration import MAX_RUNS, Calibration, learn, load_calibration, model_label
from jobs.costs.loads import Planner
from jobs.costs.tasks import World
from jobs.plan.chain import Job, own_work, plan
from jobs.plan.cluster import Local, Slurm
from jobs.plan.preflight import bounds
from serl.config.run import RunConfig
from serl.run.files import write_if_absent
from serl.run.rundir import Run, RunError

FROZEN = "forecast.json"


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the ends of a 90 % interval."""

    low: float
    median: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @classmethod
    def of(cls, quantile: Callable[[float], float]) -> Self:
        return cls(quantile(0.05), quantile(0.5), quantile(0.95))

    def __mul__(self, factor: float) -> "Interval":
        return Interval(self.low * factor, self.median * factor, self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForecast:
    """One job: what it takes from the end of what it waits for, what it uses, samples and writes."""

    name: str
    tasks: int
    seconds: Interval
    gpu_hours: float
    tokens: int
    files: int
    bytes: int
    hours: float = 0.0  # of GPUs, or of cores where nobody has GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """`seconds` of the whole run and `task_s` of slots; neither where stages are `unknown`."""

    cluster: str
    model: str
    runs: int
    unknown: tuple[str, ...]
    jobs: tuple[JobForecast, ...] = ()
    seconds: Interval | None = None
    task_s: Interval | None = None
    gpu_hours: Interval | None = None
    taken: str = ""  # how often nodes are taken away, where that was seen

    def sentence(self) -> str:
        if self.seconds is None:
            missing = ", ".join(self.unknown)
            return (
                f"no times: {missing} of {self.model} was never measured on {self.cluster}, so tokens, files "
                "and bytes are upper bounds; the report of the first run measures it"
            )
        told = span(self.seconds)
        if self.gpu_hours and self.gpu_hours.high:
            told += f", {_told(self.gpu_hours, 'GPU-hours')}"
        runs = f"{self.runs} run{'s' * (self.runs > 1)} of {self.model} on {self.cluster}{self.taken}"
        return f"done in {told} (median [90 % interval], from {runs})"


def forecast(
    config: RunConfig,
    jobs: Sequence[Job],
    cluster: Local | Slurm,
    data: Path,
    *,
    world: World | None = None,
    known: Calibration | None = None,
) -> Forecast:
    """Of jobs with something missing. `world`: what may happen to them; by default what was learned."""
    planner, todo = Planner.of(config, cluster, data, known), [job for job in own_work(jobs) if job.missing]
    known, unknown = planner.known, planner.unknown(todo)
    said = {"cluster": known.cluster, "model": known.model, "runs": len(known.runs), "unknown": unknown}
    if unknown:
        return Forecast(**said)
    from jobs.costs.simulate import study

    loads = [planner.load(job) for job in todo]
    world = world or planner.site.world(known)
    histories = study(loads, world)
    rate = world.learned
    return Forecast(
        **said,
        jobs=tuple(
            _job(planner, job, load.seconds / 3600, Interval.of(lambda q, load=load: histories.span(load, q)))
            for job, load in zip(todo, loads)
        ),
        seconds=Interval.of(histories.quantile),
        task_s=Interval.of(lambda q: histories.quantile(q, "used_s")),
        gpu_hours=Interval.of(lambda q: histories.quantile(q, "gpu_hours")),
        taken=f"; nodes taken away {rate}" if rate and rate.taken else "",
    )


def _job(planner: Planner, job: Job, hours: float, seconds: Interval) -> JobForecast:
    site, amounts = planner.site, planner.amounts(job)
    return JobForecast(
        name=job.name, tasks=len(job.missing), tokens=amounts.tokens, files=amounts.files,
        bytes=amounts.bytes, gpu_hours=hours * site.gpus(job.stage), hours=hours * site.paid[job.stage],
        seconds=seconds,
    )  # fmt: skip


# ----------------------------------------------------------------------------------- the frozen plan
def freeze_forecast(run: Run, cluster: Local | Slurm, jobs: Sequence[Job]) -> None:
    """Write down what is expected of a run, once: a later look, which knows more, changes nothing."""
    if (run.root / FROZEN).exists():
        return
    told = forecast(run.config, jobs, cluster, run.data_root)
    limits = {job.name: asdict(bound) for job, bound in zip(jobs, bounds(run.config, jobs, run.data_root))}
    content = {"made": round(time.time(), 3), "forecast": asdict(told), "bounds": limits}
    write_if_absent(run.root / FROZEN, json.dumps(content, indent=1).encode())


def frozen(run: Run) -> tuple[float, Forecast] | None:
    """When the run's forecast was made, and the forecast; None where there is none of this version."""
    try:
        content = json.loads((run.root / FROZEN).read_bytes())
        return content["made"], TypeAdapter(Forecast).validate_python(content["forecast"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def learn_from(run: Run) -> None:
    """Let what a run measured serve the next plan; nothing of a run whose cluster nobody wrote down."""
    if kept := frozen(run):
        learn(run, kept[1].cluster)


def learn_from_trials(roots: Iterable[Path]) -> None:
    """As many trials that are done as are remembered; each once, since their own reports may do it."""
    for run in islice(filter(None, map(_whole, roots)), MAX_RUNS):
        if kept := frozen(run):
            known = load_calibration(run.data_root, kept[1].cluster, model_label(run.config, run.data_root))
            if run.root.name not in known.runs:
                learn_from(run)


def _whole(root: Path) -> Run | None:
    try:
        run = Run.open(root)
        return None if any(job.missing for job in plan(run.config, run.survey())) else run
    except RunError:  # not created yet, or damaged, which the report says
        return None


def span(seconds: Interval) -> str:
    for unit, size, most in (("s", 1.0, 600.0), ("min", 60.0, 36000.0), ("h", 3600.0, float("inf"))):
        if seconds.high < most:
            break
    return _told(seconds * (1 / size), unit)


def _told(x: Interval, unit: str) -> str:
    digits = 0 if x.median >= 10 else 1 if x.median >= 1 else 3
    return f"{x.median:,.{digits}f} {unit} [{x.low:,.{digits}f}, {x.high:,.{digits}f}]"
