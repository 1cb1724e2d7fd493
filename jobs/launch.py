"""Start a run: `python -m jobs.launch CONFIG [key=value ...]`.

Checks everything that can be checked without a model, freezes configuration and code in a new run directory,
and runs the chain.

JSON: the fields of `jobs.status RUN`, as the run stands when the verb ends; with --dry-run `run folder digest
jobs forecast`, a job being `name shards after`, and the forecast having `seconds` (low, median, high), `jobs`
or the stages that are `unknown`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jobs.chain.drive import drive
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Local, Slurm, load_cluster
from jobs.plan.method import graph
from jobs.plan.preflight import check_engine, check_trainable, preflight
from jobs.runs.code import code_version, freeze_code, packages_of
from jobs.runs.queue import reach_slurm
from jobs.runs.state import state_of
from jobs.shell.command import Answer, data_root, load_run, main, parser
from serl.config.run import RunConfig
from serl.run.rundir import Run


def body(argv: Sequence[str]) -> int:
    p = parser("launch", "Start a run.")
    p.add_argument("config", type=Path, help="a run file, like configs/quickstart.yaml")
    p.add_argument("override", nargs="*", help="changes to the run file, like train.optimizer.lr=1e-6")
    p.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    p.add_argument("--graph", action="store_true", help="print who reads what as Graphviz text and stop")
    args = p.parse_intermixed_args(argv)
    config = load_run(args.config, args.override)
    cluster = load_cluster(args.cluster)
    data = data_root(args)
    check_engine(config, cluster, data)
    if args.graph:
        print(graph(config), end="")
        return 0
    jobs = plan(config, done=lambda shard: False)
    if args.dry_run:
        from jobs.plan.preview import show_plan  # forecasts, which no launch needs

        told = show_plan(config, jobs, cluster, data, Console())
        return Answer(fields=_planned(config, data, jobs) | {"forecast": dataclasses.asdict(told)})
    code = launch(config, cluster, data, jobs)
    made = Run.open(data / "runs" / config.name)
    return Answer(code=code, fields=state_of(made).facts()) if args.json else code


def _planned(config: RunConfig, data: Path, jobs: Sequence[Job]) -> dict[str, object]:
    shown = [{"name": job.name, "shards": job.num_shards, "after": list(job.after)} for job in jobs]
    return {
        "run": config.name,
        "folder": str(data / "runs" / config.name),
        "digest": config.digest(),
        "jobs": shown,
    }


def launch(config: RunConfig, cluster: Local | Slurm, data: Path, jobs: Sequence[Job]) -> int:
    root = data / "runs" / config.name
    if isinstance(cluster, Slurm):
        reach_slurm()
    preflight(config, data, jobs)
    check_trainable([config], data)
    run = Run.create(root, config, code_version())
    freeze_code(root / "code", packages_of(config))
    return drive(run, cluster)


if __name__ == "__main__":
    main(body)
