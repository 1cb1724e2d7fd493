"""Start a run: `python -m jobs.launch CONFIG [key=value ...]`.

Checks everything that can be checked without a model, freezes configuration and code in a new run directory, and runs the chain.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.cluster import Local, Machine, load_cluster, this_machine
from jobs.command import data_root, main, parser
from jobs.drive import drive
from jobs.plan import Job, estimate, plan
from jobs.preflight import num_parameters, preflight
from jobs.runs import code_version, freeze_code
from serl.config import RunConfig
from serl.configfile import load
from serl.rundir import Run


def body(argv: Sequence[str]) -> int:
    p = parser("launch", "Start a run.")
    p.add_argument("config", type=Path, help="a run file, like configs/quickstart.yaml")
    p.add_argument("override", nargs="*", help="changes to the run file, like train.optimizer.lr=1e-6")
    p.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    args = p.parse_args(argv)
    config = load(RunConfig, args.config, args.override)
    cluster = load_cluster(args.cluster)
    machine = this_machine(cluster)
    data = data_root(args)
    jobs = plan(config, done=lambda shard: False)
    if args.dry_run:
        show_plan(config, jobs, machine, data, Console())
        return 0
    return launch(config, cluster, machine, data, jobs)


def launch(config: RunConfig, cluster: Local, machine: Machine, data: Path, jobs: Sequence[Job]) -> int:
    root = data / "runs" / config.name
    preflight(config, data, root, jobs)
    run = Run.create(root, config, code_version())
    freeze_code(root / "code")
    return drive(run, cluster, machine)


def show_plan(config: RunConfig, jobs: Sequence[Job], machine: Machine, data: Path, console: Console) -> None:
    """The chain as a table, with an upper bound of what it writes."""
    table = Table(title=f"{config.name}: {config.rounds} rounds in {data / 'runs' / config.name}", title_justify="left")
    for column, justify in (("job", "left"), ("shards", "right"), ("after", "left"), ("tokens <=", "right"), ("files <=", "right"), ("MB <=", "right")):
        table.add_column(column, justify=justify)
    bounds = [estimate(config, job, num_parameters(config, data)) for job in jobs]
    for job, bound in zip(jobs, bounds):
        shards = f"{job.num_shards} x {machine.train_ranks} ranks" if job.stage == "train" else str(job.num_shards)
        table.add_row(job.name, shards, ", ".join(job.after), f"{bound.tokens:,}", str(bound.files), f"{bound.bytes / 1e6:.1f}")
    table.add_section()
    table.add_row("total", str(sum(j.num_shards for j in jobs)), "", f"{sum(b.tokens for b in bounds):,}", str(sum(b.files for b in bounds)),
                  f"{sum(b.bytes for b in bounds) / 1e6:.1f}")  # fmt: skip
    console.print(table)
    slots = f"{len(machine.gpus)} GPUs" if machine.gpus else f"{machine.cores} cores"
    console.print(f"runs on this machine: {slots}, {machine.slots} shards at once; configuration {config.digest()}", highlight=False)


if __name__ == "__main__":
    main(body)
