"""The plan, printed before anything runs: jobs, what they wait for, resources, what they sample and write,
and how long that takes.

Where nothing was measured, tokens, files and bytes are upper bounds and there are no times.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.chain.batch import sbatch_text
from jobs.costs.forecast import Forecast, forecast, span
from jobs.costs.loads import site_of
from jobs.plan.chain import Job
from jobs.plan.cluster import Local, Slurm, this_machine
from jobs.plan.method import show_method
from jobs.plan.preflight import bounds
from serl.config.run import RunConfig


def show_plan(
    config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path, console: Console
) -> Forecast:
    root = data / "runs" / config.name
    told = forecast(config, jobs, cluster, data)
    show_method(config, console)
    console.print(_table(config, jobs, cluster, data, told))
    console.print(told.sentence(), markup=False, highlight=False, soft_wrap=True)
    match cluster:
        case Local():
            machine = this_machine(cluster)
            slots = f"{len(machine.gpus)} GPUs" if machine.gpus else f"{machine.cores} cores"
            console.print(f"runs on this machine: {slots}, {machine.slots} shards at once", highlight=False)
        case Slurm():
            site = site_of(cluster, config)
            hours = sum(
                cluster.resources(job.of).time_min / 60 * site.paid[job.stage] * len(job.missing)
                for job in jobs
            )
            console.print(
                f"at most {hours:,.1f} {site.unit}, if every task used its whole time limit", highlight=False
            )
            for job in jobs:
                console.print(
                    f"\n# {job.name}\n{sbatch_text(root, config.digest(), cluster, job)}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    console.print(
        f"run directory {root}; configuration {config.digest()}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return told


def _table(
    config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path, told: Forecast
) -> Table:
    table = Table(
        title=f"{config.name}: round 0 is the base model, then {config.rounds} rounds", title_justify="left"
    )
    known = told.seconds is not None
    gpus = any(j.gpu_hours for j in told.jobs)
    most = "" if known else " <="
    columns = (
        "job",
        "shards",
        "after",
        f"tokens{most}",
        f"files{most}",
        f"MB{most}",
        *(["time [90 %]"] if known else []),
        *(["GPU-hours"] if gpus else []),
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("job", "after") else "right")
    rows = told.jobs if known else bounds(config, jobs, data)
    times = (
        [[span(j.seconds), *([f"{j.gpu_hours:,.2f}"] if gpus else [])] for j in told.jobs]
        if known
        else [[] for _ in jobs]
    )
    for job, row, more in zip([job for job in jobs if job.missing or not known], rows, times, strict=True):
        table.add_row(
            job.name,
            _shards(job, cluster),
            ", ".join(job.after),
            f"{row.tokens:,}",
            str(row.files),
            f"{row.bytes / 1e6:.1f}",
            *more,
        )
    table.add_section()
    totals = [sum(getattr(r, k) for r in rows) for k in ("tokens", "files", "bytes")]
    whole = (
        [span(told.seconds), *([f"{sum(j.gpu_hours for j in told.jobs):,.2f}"] if gpus else [])]
        if told.seconds
        else []
    )
    table.add_row(
        "total",
        str(sum(j.num_shards for j in jobs)),
        "",
        f"{totals[0]:,}",
        str(totals[1]),
        f"{totals[2] / 1e6:.1f}",
        *whole,
    )
    return table


def _shards(job: Job, cluster: Local | Slurm) -> str:
    match cluster:
        case Local():
            return (
                f"1 x {this_machine(cluster).train_ranks} ranks" if job.of.kind.ranks else str(job.num_shards)
            )
        case Slurm():
            own = cluster.resources(job.of)
            size = f"{own.nodes} nodes x {own.tasks_per_node} ranks" if own.ranks > 1 else "1 task"
            return f"{job.num_shards} x {size}" + (
                f", {own.nodes * own.gpus_per_node} GPUs" if own.gpus_per_node else ""
            )
