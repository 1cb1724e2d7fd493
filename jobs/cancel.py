"""Stop a run: `python -m jobs.cancel RUN` ends the processes and Slurm jobs that this run recorded, and no others.

JSON: `run`, `stopped_here` (whether a launcher or leftovers of one ended) and `cancelled_jobs` (in Slurm's queue).
"""

import os
import signal
import time
from collections.abc import Sequence

from jobs import slurm
from jobs.command import Answer, data_root, main, parser
from jobs.local import GRACE_S, end_leftovers
from jobs.runs import find_run, launcher_of
from serl.rundir import RunError


def body(argv: Sequence[str]) -> Answer:
    p = parser("cancel", "Stop a run at its next safe points; jobs.resume continues it.")
    p.add_argument("run", help="a run's name, or its folder")
    args = p.parse_intermixed_args(argv)
    run = find_run(args.run, data_root(args))
    launcher = launcher_of(run.root)
    if launcher and not launcher.here:
        raise RunError(f"{run.root.name} is run by process {launcher.pid} on {launcher.host}: cancel it there")
    if launcher:
        os.kill(launcher.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S + 15
        while launcher.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
    left = end_leftovers(run, GRACE_S)
    queued = slurm.cancel(run)
    did = [*(["stopped here"] if launcher or left else []), *([f"cancelled {queued} jobs in the queue"] if queued else [])]
    print(f"{run.root.name}: {' and '.join(did) or 'nothing of it is running'}")
    return Answer(fields={"run": run.root.name, "stopped_here": bool(launcher or left), "cancelled_jobs": queued})


if __name__ == "__main__":
    main(body)
