"""When a plan would be done and what it would use: learned costs put into the simulator, with intervals; and a plan held against what came.

Where nothing was measured there is no forecast, only the bounds of `jobs.plan.chain`. The forecast of a run is frozen in its folder before its
first job, so that planned and actual can be compared honestly afterwards.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from jobs.costs.calibration import MAX_RUNS, Calibration, learn, load_calibration, model_label
from jobs.costs.loads import Planner, Site, site_of
from jobs.costs.simulate import Study, study
from jobs.costs.weather import World
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Local, Slurm
from jobs.plan.preflight import bounds
from jobs.plan.preflight import world_of as outside_world
from serl.config.run import RunConfig
from serl.run.files import write_if_absent
from serl.run.rundir import Run, RunError

LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the ends of a 90 % interval."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, histories: Study, what: str) -> "Interval":
        return cls(*(histories.quantile(q, what) for q in (LOW, 0.5, HIGH)))

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


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
    """A plan in numbers. `seconds` is the whole run's; `task_s` are seconds of slots. None of it where `unknown` stages have no measurements."""

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
        if self.seconds is None or self.task_s is None or self.gpu_hours is None:
            missing = ", ".join(self.unknown)
            return (
                f"no times: {missing} of {self.model} was never measured on {self.cluster}, so tokens, files and bytes are upper bounds; "
                "the report of the first run measures it"
            )
        gpus = f", {_told(self.gpu_hours, 'GPU-hours')}" if self.gpu_hours.high else ""
        return f"done in {span(self.seconds)}{gpus} (median [90 % interval], from {self.runs} run{'s' * (self.runs > 1)} of {self.model} on {self.cluster}{self.taken})"


# ------------------------------------------------------------------------------------------------ forecasts
def forecast(
    config: RunConfig,
    jobs: Sequence[Job],
    cluster: Local | Slurm,
    data: Path,
    *,
    world: World | None = None,
    known: Calibration | None = None,
) -> Forecast:
    """Of the jobs of a plan that have something missing. `world` says what may happen to them; by default what was learned."""
    site = site_of(cluster, config)
    known = known or load_calibration(data, site.label, model_label(config, data))
    todo = [job for job in jobs if job.missing]
    unknown = tuple(dict.fromkeys(job.stage for job in todo if not known.knows(job.stage, job.round)))
    if unknown:
        return Forecast(cluster=known.cluster, model=known.model, runs=len(known.runs), unknown=unknown)
    planner = Planner(config=config, known=known, site=site, rows=outside_world(config, data).rows)
    loads = [planner.load(job) for job in todo]
    world = world or world_of(site, known)
    histories = study(loads, world)
    hours = {
        job.name: sum(t.seconds for t in load.tasks) * site.gpus[job.stage] / 3600
        for job, load in zip(todo, loads)
    }
    shown = tuple(
        JobForecast(
            name=job.name, tasks=len(job.missing), seconds=Interval(*(histories.span(load, q) for q in (LOW, 0.5, HIGH))), gpu_hours=hours[job.name],
            tokens=planner.tokens(job), files=planner.files(job), bytes=planner.bytes(job),
            hours=sum(t.seconds for t in load.tasks) * site.paid[job.stage] / 3600,
        )
        for job, load in zip(todo, loads)
    )  # fmt: skip
    used, total = Interval.of(histories, "used_s"), sum(hours.values())
    plain = sum(t.seconds * load.width for load in loads for t in load.tasks) or 1.0
    gpu_hours = Interval(*(total * x / plain for x in (used.low, used.median, used.high)))
    return Forecast(
        cluster=known.cluster, model=known.model, runs=len(known.runs), unknown=(), jobs=shown, seconds=Interval.of(histories, "makespan_s"),
        task_s=used, gpu_hours=gpu_hours, taken=f"; nodes taken away {rate}" if (rate := world.learned) and rate.taken else "",
    )  # fmt: skip


def world_of(site: Site, known: Calibration) -> World:
    """What may happen to jobs there: as much as happened to the runs before."""
    rate = known.weather.rate
    return World(
        slots=site.slots, array_limit=site.array_limit, doubt=known.doubt, preempt_per_hour=rate.mean if rate else 0.0, learned=rate,
        requeue_s=known.requeue_s,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the frozen plan
FROZEN = "forecast.json"


def freeze_forecast(run: Run, cluster: Local | Slurm, jobs: Sequence[Job]) -> None:
    """Write down what is expected of a run, once: a later look, which knows more, changes nothing."""
    if (run.root / FROZEN).exists():
        return
    told = forecast(run.config, jobs, cluster, run.data_root)
    limits = {job.name: asdict(bound) for job, bound in zip(jobs, bounds(run.config, jobs, run.data_root))}
    content = {"made": round(time.time(), 3), "forecast": asdict(told), "bounds": limits}
    write_if_absent(run.root / FROZEN, json.dumps(content, indent=1).encode())


def frozen(run: Run) -> tuple[float, Forecast] | None:
    """When the run's forecast was made, and the forecast; None for a run that has none, or one of another version."""
    try:
        content = json.loads((run.root / FROZEN).read_bytes())
        f = content["forecast"]
        intervals = {k: Interval(**f[k]) if f[k] else None for k in ("seconds", "task_s", "gpu_hours")}
        jobs = tuple(JobForecast(**j | {"seconds": Interval(**j["seconds"])}) for j in f["jobs"])
        return content["made"], Forecast(**f | intervals | {"jobs": jobs, "unknown": tuple(f["unknown"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def learn_from(run: Run) -> None:
    """Let what a run measured serve the next plan; nothing of a run whose cluster nobody wrote down."""
    if kept := frozen(run):
        learn(run, kept[1].cluster)


def learn_from_trials(roots: Iterable[Path]) -> None:
    """The same of a sweep's trials: of as many that are done as are remembered, each once, since their own reports may be written too."""
    for run in islice(filter(None, map(_whole, roots)), MAX_RUNS):
        kept = frozen(run)
        if (
            kept
            and run.root.name
            not in load_calibration(
                run.data_root, kept[1].cluster, model_label(run.config, run.data_root)
            ).runs
        ):
            learn(run, kept[1].cluster)


def _whole(root: Path) -> Run | None:
    try:
        run = Run.open(root)
        return None if any(job.missing for job in plan(run.config, run.survey())) else run
    except RunError:  # not created yet, or damaged, which the report says
        return None


def span(seconds: Interval) -> str:
    unit, size = (
        ("s", 1.0) if seconds.high < 600 else ("min", 60.0) if seconds.high < 36000 else ("h", 3600.0)
    )
    return _told(Interval(*(x / size for x in (seconds.low, seconds.median, seconds.high))), unit)


def _told(x: Interval, unit: str) -> str:
    digits = 0 if x.median >= 10 else 1 if x.median >= 1 else 3
    return f"{x.median:,.{digits}f} {unit} [{x.low:,.{digits}f}, {x.high:,.{digits}f}]"
