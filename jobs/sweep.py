"""Many runs from one file: `python -m jobs.sweep SWEEP.yaml`, and `jobs.sweep status|cancel|report NAME`.

Launching is idempotent: trials that are new are added, those that are done stay, the others are resumed; also after a launcher was killed at
any point, and from another machine. On Slurm the trials are handed over in lanes and nobody is needed; here they run one after another.

JSON: of a launch and of status `sweep folder states shared trials`: `states` counts trials by state; of shared stages `stage key done users`;
of trials `id run overrides state fraction rounds ended failures`, `ended` being why a trial was stopped early. Of --dry-run `sweep trials shared
hours_saved unit` (GPU-hours, or core-hours where there are no GPUs; null where nobody knows); of cancel `sweep cancelled_jobs stopped_here`; of
report `sweep paths`.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jobs.chain.local import GRACE_S, end_leftovers
from jobs.chain.queue import Journal, reach_slurm
from jobs.chain.slurm import cancel_runs
from jobs.chain.window import RELAY
from jobs.costs.forecast import learn_from_trials
from jobs.plan.cluster import Local, Slurm, load_cluster
from jobs.plan.preflight import check_engine
from jobs.runs.find import claim, end_launcher, release, what_was_cancelled
from jobs.shell.command import EXIT_FAILED, Answer, data_root, main, parser
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft, code_of, draft_sweep, prepare, run_here
from jobs.sweeps.relay import hand_over
from jobs.sweeps.status import facts, glance, show_plan, show_status
from jobs.sweeps.trials import load_sweep, sweep_dir
from serl.run.rundir import Run

ACTIONS = ("status", "cancel", "report")


def body(argv: Sequence[str]) -> Answer:
    p = parser("sweep", "Run a sweep: start it, go on with it, look at it, stop it, or report on it.")
    p.add_argument(
        "what",
        metavar="SWEEP.yaml|status|cancel|report",
        help="a sweep file to launch or go on with; or what to do with a sweep that was launched",
    )
    p.add_argument("name", nargs="?", help="after status, cancel and report: the sweep's name")
    p.add_argument(
        "--dry-run", action="store_true", help="print trials, what they share and what that saves, and stop"
    )
    args = p.parse_intermixed_args(argv)
    if (args.what in ACTIONS) != (args.name is not None):
        p.error("give a sweep file alone, or one of status, cancel and report with a sweep's name")
    data, console = data_root(args), Console()
    match args.what:
        case "status":
            return _status(data, args.name, console)
        case "cancel":
            return _cancel(data, args.name)
        case "report":
            return _report(data, args.name, console)
    cluster = load_cluster(args.cluster)
    draft = draft_sweep(Path(args.what), data)
    for config in draft.configs:
        check_engine(config, cluster)
    if args.dry_run:
        return Answer(fields=show_plan(draft, cluster, console))
    return _launch(draft, cluster, console)


def _launch(draft: Draft, cluster: Local | Slurm, console: Console) -> Answer:
    if isinstance(cluster, Slurm):
        reach_slurm()
    folder = sweep_dir(draft.data, draft.config.name)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, watch="sweep status {}", stop="sweep cancel {}")
    try:
        num_lanes = lanes.count(draft.config.cap, draft.configs, cluster) if isinstance(cluster, Slurm) else 1
        runs = prepare(draft, at_once=num_lanes)
        match cluster:
            case Local():
                failed = run_here(draft, runs, cluster, console)
                _report(draft.data, draft.config.name, console)
            case Slurm():
                new = hand_over(folder, runs, num_lanes, cluster, code_of(draft))
                failed = 0
                rest = (
                    "; Slurm has no room for more now, and a relay goes on with the rest"
                    if new and new[-1].job == RELAY
                    else ""
                )
                console.print(
                    f"submitted {len(new)} jobs and arrays, in {num_lanes} lanes{rest}", highlight=False
                )
    finally:
        release(folder)
    sweep = load_sweep(draft.data, draft.config.name)
    seen = glance(sweep, draft.data)
    show_status(seen, console)
    return Answer(code=EXIT_FAILED if failed else 0, fields=facts(seen))


def _status(data: Path, name: str, console: Console) -> Answer:
    seen = glance(load_sweep(data, name), data)
    show_status(seen, console)
    return Answer(fields=facts(seen))


def _cancel(data: Path, name: str) -> Answer:
    """Its launcher here if it lives, what that left behind, and every job of its trials in the queue."""
    sweep = load_sweep(data, name)
    folder = sweep_dir(data, name)
    here = end_launcher(folder, GRACE_S + 15)
    runs = [Run.open(root) for t in sweep.trials if ((root := data / "runs" / t.run) / "run.json").is_file()]
    here |= sum(end_leftovers(run, GRACE_S) for run in runs) > 0
    queued = cancel_runs(runs, also={s.token for s in Journal(folder).submissions()})
    print(f"{name}: {what_was_cancelled(here, queued)}")
    return Answer(fields={"sweep": name, "stopped_here": here, "cancelled_jobs": queued})


def _report(data: Path, name: str, console: Console) -> Answer:
    from jobs.reporting.written import write_sweep_report

    sweep = load_sweep(data, name)
    learn_from_trials(data / "runs" / t.run for t in reversed(sweep.trials))
    paths, summary = write_sweep_report(sweep, data)
    console.print(summary)
    console.print(f"report: {paths[0]}", markup=False, highlight=False, soft_wrap=True)
    return Answer(fields={"sweep": name, "paths": [str(p) for p in paths]})


if __name__ == "__main__":
    main(body)
