"""Stop a run: `python -m jobs.cancel RUN` ends the processes and Slurm jobs that this run recorded, and no
others.

JSON: `run`, `stopped_here` (whether a launcher or leftovers of one ended) and `cancelled_jobs` (in Slurm's
queue).
"""

from collections.abc import Sequence

from jobs.chain.cancel import cancel
from jobs.chain.local import GRACE_S, end_leftovers
from jobs.runs.find import find_run
from jobs.runs.processes import end_launcher, what_was_cancelled
from jobs.shell.command import Answer, data_root, main, parser


def body(argv: Sequence[str]) -> Answer:
    p = parser("cancel", "Stop a run at its next safe points; jobs.resume continues it.")
    p.add_argument("run", help="a run's name, or its folder")
    args = p.parse_intermixed_args(argv)
    run = find_run(args.run, data_root(args))
    here = end_launcher(run.root, GRACE_S + 15)
    here |= bool(end_leftovers(run, GRACE_S))
    queued = cancel(run)
    print(f"{run.root.name}: {what_was_cancelled(here, queued)}")
    return Answer(fields={"run": run.root.name, "stopped_here": here, "cancelled_jobs": queued})


if __name__ == "__main__":
    main(body)
