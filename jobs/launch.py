"""Start a run: `python -m jobs.launch CONFIG [key=value ...]`.

Checks everything that can be checked without a model, freezes configuration and code in a new run directory, and runs the chain.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jobs.cluster import Local, Slurm, load_cluster
from jobs.command import data_root, main, parser
from jobs.drive import drive
from jobs.plan import Job, plan
from jobs.preflight import preflight
from jobs.preview import show_plan
from jobs.runs import code_version, freeze_code
from serl.config import RunConfig
from serl.configfile import load
from serl.rundir import Run


def body(argv: Sequence[str]) -> int:
    p = parser("launch", "Start a run.")
    p.add_argument("config", type=Path, help="a run file, like configs/quickstart.yaml")
    p.add_argument("override", nargs="*", help="changes to the run file, like train.optimizer.lr=1e-6")
    p.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    args = p.parse_intermixed_args(argv)
    config = load(RunConfig, args.config, args.override)
    cluster = load_cluster(args.cluster)
    data = data_root(args)
    jobs = plan(config, done=lambda shard: False)
    if args.dry_run:
        show_plan(config, jobs, cluster, data, Console())
        return 0
    return launch(config, cluster, data, jobs)


def launch(config: RunConfig, cluster: Local | Slurm, data: Path, jobs: Sequence[Job]) -> int:
    root = data / "runs" / config.name
    preflight(config, data, root, jobs)
    run = Run.create(root, config, code_version())
    freeze_code(root / "code")
    return drive(run, cluster)


if __name__ == "__main__":
    main(body)
