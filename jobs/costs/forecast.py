"""When a plan would be done and what it would use: learned costs put into the simulator, with intervals.

Where nothing was measured there is no forecast, only the bounds of `jobs.plan.chain`. The forecast of a run
is frozen in its folder before its first job, so that planned and actual can be compared honestly afterwards
(`ledger`).
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from jobs.costs.calibration import Calibration
from jobs.costs.loads import Planner
from jobs.costs.simulate import Interval, World, bearable_per_hour, study
from jobs.plan.chain import Job, own_work
from jobs.plan.cluster import Local, Slurm
from jobs.runs.progress import span
from serl.config.run import RunConfig
from serl.run.files import write_if_absent
from serl.run.rundir import Run

FROZEN = "forecast.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForecast:
    """One job: what it takes from the end of what it waits for, and what it uses."""

    name: str
    seconds: Interval
    gpu_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """`seconds` of the whole run; None where stages are `unknown`. On average tasks use `used_s`, of which
    `wasted_s` are start-ups, saves, ends and what preemption takes.
    """

    cluster: str
    model: str
    runs: int
    unknown: tuple[str, ...]
    jobs: tuple[JobForecast, ...] = ()
    seconds: Interval | None = None
    gpu_hours: Interval | None = None
    used_s: float = 0.0
    wasted_s: float = 0.0
    preempt_per_hour: float = 0.0

    @property
    def total(self) -> JobForecast | None:
        if self.seconds is None or self.gpu_hours is None:
            return None
        return JobForecast(name="total", seconds=self.seconds, gpu_hours=self.gpu_hours.median)

    def sentence(self) -> str:
        if self.seconds is None:
            missing = ", ".join(self.unknown)
            return (
                f"no times: {missing} of {self.model} was never measured on {self.cluster}, so tokens, files "
                "and bytes are upper bounds; the report of the first run measures it"
            )
        told = length(self.seconds)
        if (hours := self.gpu_hours) and hours.high:
            told += f", {hours.median:,.2f} GPU-hours [{hours.low:,.2f}, {hours.high:,.2f}]"
        runs = f"{self.runs} run{'s' * (self.runs > 1)} of {self.model} on {self.cluster}"
        if self.preempt_per_hour:
            runs += f"; nodes taken away {self.preempt_per_hour:.2g} times an hour"
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
    said = {"cluster": known.cluster, "model": known.model, "runs": len(known.taught), "unknown": unknown}
    if unknown:
        return Forecast(**said)
    loads = [planner.load(job) for job in todo]
    if world is None:  # what was learned could be borne: the runs before were done, after all
        seen = planner.world()
        world = replace(seen, preempt_per_hour=min(seen.preempt_per_hour, bearable_per_hour(loads)))
    histories = study(loads, world)
    used_s = sum(load.expected_s(world.preempt_per_hour) * load.width for load in loads)
    return Forecast(
        **said,
        jobs=tuple(
            JobForecast(
                name=load.name,
                seconds=Interval.of([o.ended[load.name] - o.ready_s(load) for o in histories]),
                gpu_hours=load.expected_s(world.preempt_per_hour) * load.gpus / 3600,
            )
            for load in loads
        ),
        seconds=Interval.of([o.makespan_s for o in histories]),
        gpu_hours=Interval.of([o.gpu_hours for o in histories]),
        used_s=used_s,
        wasted_s=used_s - sum(t.work_s * load.width for load in loads for t in load.tasks),
        preempt_per_hour=world.preempt_per_hour,
    )


# ----------------------------------------------------------------------------------- the frozen plan
def freeze_forecast(run: Run, cluster: Local | Slurm, jobs: Sequence[Job]) -> None:
    """Write down what is expected of a run, once: a later look, which knows more, changes nothing."""
    if not (run.root / FROZEN).exists():
        told = forecast(run.config, jobs, cluster, run.data_root)
        content = {"made": round(time.time(), 3), "forecast": asdict(told)}
        write_if_absent(run.root / FROZEN, json.dumps(content, indent=1).encode())


def frozen(run: Run) -> tuple[float, Forecast] | None:
    """When the run's forecast was made, and the forecast; None where there is none of this version."""
    try:
        content = json.loads((run.root / FROZEN).read_bytes())
        return content["made"], TypeAdapter(Forecast).validate_python(content["forecast"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def length(seconds: Interval) -> str:
    return f"{span(seconds.median)} [{span(seconds.low)}, {span(seconds.high)}]"
