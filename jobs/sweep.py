"""Many runs from one file: `python -m jobs.sweep SWEEP.yaml`, and `jobs.sweep status|cancel|report NAME`.

Launching is idempotent: trials that are new are added, those that are done stay, the others are resumed; also
after a launcher was killed at any point, and from another machine. On Slurm the trials are handed over in
lanes and nobody is needed; here they run one after another.

JSON: of a launch and of status `sweep folder states shared trials`: `states` counts trials by state; of
shared stages `stage key done users`; of trials `id run overrides state fraction rounds ended failures`,
`ended` being why a trial was stopped early. Of --dry-run `sweep trials shared`, of a shared stage `stage
wanted computed`; of cancel `sweep cancelled_jobs stopped_here`; of report `sweep paths`.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jobs.chain.cancel import cancel_runs
from jobs.chain.local import GRACE_S, end_leftovers
from jobs.chain.window import RELAY
from jobs.plan.cluster import Local, Slurm, load_cluster
from jobs.plan.preflight import check_engine, check_trainable
from jobs.runs.processes import claim, end_launcher, release, what_was_cancelled
from jobs.runs.queue import Journal, reach_slurm
from jobs.shell.command import EXIT_FAILED, Answer, data_root, main, parser
from jobs.shell.screen import say
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft, code_of, draft_sweep, prepare, run_here
from jobs.sweeps.relay import hand_over
from jobs.sweeps.status import look_at, show_status
from jobs.sweeps.trials import load_sweep, sweep_dir


def body(argv: Sequence[str]) -> Answer:
    p = parser("sweep", "Run a sweep: start it, go on with it, look at it, stop it, or report on it.")
    p.add_argument(
        "what", metavar="SWEEP.yaml|status|cancel|report",
        help="a sweep file to launch or go on with; or what to do with a sweep that was launched",
    )  # fmt: skip
    p.add_argument("name", nargs="?", help="after status, cancel and report: the sweep's name")
    dry = "print trials and what they share, and stop"
    p.add_argument("--dry-run", action="store_true", help=dry)
    args = p.parse_intermixed_args(argv)
    if (args.what in ACTIONS) != (args.name is not None):
        p.error("give a sweep file alone, or one of status, cancel and report with a sweep's name")
    data = data_root(args)
    if args.what in ACTIONS:
        return ACTIONS[args.what](data, args.name)
    cluster = load_cluster(args.cluster)
    draft = draft_sweep(Path(args.what), data)
    for config in draft.configs:
        check_engine(config, cluster, data)
    if args.dry_run:
        from jobs.sweeps.preview import show_plan

        return Answer(fields=show_plan(draft, cluster, Console()))
    check_trainable(draft.configs, data)
    return _launch(draft, cluster)


def _launch(draft: Draft, cluster: Local | Slurm) -> Answer:
    if isinstance(cluster, Slurm):
        reach_slurm()
    name, failed = draft.config.name, 0
    folder = sweep_dir(draft.data, name)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, watch="sweep status {}", stop="sweep cancel {}")
    try:
        match cluster:
            case Local():
                failed = run_here(draft, prepare(draft), cluster, Console())
                _report(draft.data, name)
            case Slurm():
                num_lanes = lanes.count(draft.config.cap, draft.configs, cluster)
                runs = prepare(draft, at_once=num_lanes)
                new = hand_over(folder, runs, num_lanes, cluster, code_of(draft))
                left = new and new[-1].job == RELAY
                rest = "; Slurm has no room for more now, and a relay goes on with the rest" if left else ""
                say(f"submitted {len(new)} jobs and arrays, in {num_lanes} lanes{rest}")
    finally:
        release(folder)
    return Answer(code=EXIT_FAILED if failed else 0, fields=_status(draft.data, name).fields)


def _status(data: Path, name: str) -> Answer:
    sweep = load_sweep(data, name)
    fields, states = look_at(sweep, data)
    show_status(sweep, fields, states, Console())
    return Answer(fields=fields)


def _cancel(data: Path, name: str) -> Answer:
    """Its launcher here if it lives, what that left behind, and every job of its trials in the queue."""
    sweep = load_sweep(data, name)
    folder = sweep_dir(data, name)
    here = end_launcher(folder, GRACE_S + 15)
    runs = [run for trial in sweep.trials if (run := trial.opened(data))]
    here |= sum(end_leftovers(run, GRACE_S) for run in runs) > 0
    queued = cancel_runs(runs, also={s.token for s in Journal(folder).submissions()})
    print(f"{name}: {what_was_cancelled(here, queued)}")
    return Answer(fields={"sweep": name, "stopped_here": here, "cancelled_jobs": queued})


def _report(data: Path, name: str) -> Answer:
    from jobs.costs.measured import learn_from_trials
    from jobs.reporting.written import write_sweep_report

    sweep = load_sweep(data, name)
    learn_from_trials(data / "runs" / t.run for t in reversed(sweep.trials))
    paths, summary = write_sweep_report(sweep, data)
    Console().print(summary)
    say(f"report: {paths[0]}")
    return Answer(fields={"sweep": name, "paths": [str(p) for p in paths]})


ACTIONS = {"status": _status, "cancel": _cancel, "report": _report}

if __name__ == "__main__":
    main(body)
