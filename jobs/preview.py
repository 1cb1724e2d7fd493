"""The plan, printed before anything runs: jobs, what they wait for, resources, and an upper bound of what they write."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.cluster import Local, Slurm, this_machine
from jobs.plan import Job, estimate
from jobs.preflight import num_parameters
from jobs.slurm import sbatch_text
from serl.config import RunConfig


def show_plan(config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path, console: Console) -> None:
    root = data / "runs" / config.name
    console.print(_table(config, jobs, cluster, data))
    match cluster:
        case Local():
            machine = this_machine(cluster)
            slots = f"{len(machine.gpus)} GPUs" if machine.gpus else f"{machine.cores} cores"
            console.print(f"runs on this machine: {slots}, {machine.slots} shards at once", highlight=False)
        case Slurm():
            hours = sum(cluster.resources(job.stage).gpu_hours * len(job.missing) for job in jobs)
            console.print(f"at most {hours:,.1f} GPU-hours, if every task used its whole time limit", highlight=False)
            for job in jobs:
                console.print(f"\n# {job.name}\n{sbatch_text(root, config.digest(), cluster, job)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"run directory {root}; configuration {config.digest()}", markup=False, highlight=False, soft_wrap=True)


def _table(config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path) -> Table:
    table = Table(title=f"{config.name}: round 0 is the base model, then {config.rounds} rounds", title_justify="left")
    for column, justify in (("job", "left"), ("shards", "right"), ("after", "left"), ("tokens <=", "right"), ("files <=", "right"), ("MB <=", "right")):
        table.add_column(column, justify=justify)
    bounds = [estimate(config, job, num_parameters(config, data)) for job in jobs]
    for job, bound in zip(jobs, bounds):
        table.add_row(job.name, _shards(job, cluster), ", ".join(job.after), f"{bound.tokens:,}", str(bound.files), f"{bound.bytes / 1e6:.1f}")
    table.add_section()
    totals = [sum(getattr(b, k) for b in bounds) for k in ("tokens", "files", "bytes")]
    table.add_row("total", str(sum(j.num_shards for j in jobs)), "", f"{totals[0]:,}", str(totals[1]), f"{totals[2] / 1e6:.1f}")
    return table


def _shards(job: Job, cluster: Local | Slurm) -> str:
    match cluster:
        case Local():
            return f"1 x {this_machine(cluster).train_ranks} ranks" if job.stage == "train" else str(job.num_shards)
        case Slurm():
            own = cluster.resources(job.stage)
            size = f"{own.nodes} nodes x {own.tasks_per_node} ranks" if own.ranks > 1 else "1 task"
            return f"{job.num_shards} x {size}" + (f", {own.nodes * own.gpus_per_node} GPUs" if own.gpus_per_node else "")
