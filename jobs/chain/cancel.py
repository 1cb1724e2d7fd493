"""Jobs of runs, taken out of the queue: theirs alone, and no other run's."""

import time
from collections.abc import Collection, Sequence

from jobs.chain.ticket import turn
from jobs.chain.window import RELAY
from jobs.runs.queue import SETTLE_S, Journal, Queued, ask_slurm, look_at_queue, recorded
from jobs.runs.shared import users
from serl.run.rundir import Run, shared_dir


def live(run: Run) -> list[Queued]:
    """Those in the queue, recorded or not, with those of the stages that it shares: one squeue call."""
    tokens = {s.token for s in recorded(run)}
    return [q for q in look_at_queue() if q.token in tokens] if tokens else []


def cancel(run: Run) -> int:
    """Cancel the jobs of this run; returns how many were in the queue.

    A relay that is submitting just now is waited for, and until it has gone nobody else has the turn: what it
    submitted is cancelled, too.
    """
    relays = {s.token for s in Journal(run.root).submissions() if s.job == RELAY and s.id is not None}
    if not relays:
        return cancel_runs([run])
    with turn(run.root) as renew:
        number = cancel_runs([run])
        deadline = time.monotonic() + SETTLE_S
        while any(q.token in relays for q in look_at_queue()) and time.monotonic() < deadline:
            renew()
            time.sleep(1)
    return number


def cancel_runs(runs: Sequence[Run], *, also: Collection[str] = ()) -> int:
    """Cancel the jobs of these runs, and those with tokens in `also`. A shared stage's job stays while other
    runs that have jobs in the queue wait for it.
    """
    names = {run.root.name for run in runs}
    tokens = {s.token for run in runs for s in Journal(run.root).submissions()} | set(also)
    keys = {key for run in runs for key in run.shared.values()}
    if not tokens and not keys:
        return 0
    queue = look_at_queue()
    waiting = {q.token for q in queue}
    others = users(runs[0].data_root) if keys else {}
    for key in keys:
        data = runs[0].data_root
        shared = [data / "runs" / name for name in others.get(key, ()) if name not in names]
        if not any(s.token in waiting for root in shared for s in Journal(root).submissions()):
            tokens |= {s.token for s in Journal(shared_dir(data, key)).submissions()}
    jobs = [q for q in queue if q.token in tokens]
    if jobs:
        ask_slurm(["scancel", *sorted({q.id.partition("_")[0] for q in jobs})])
    return len(jobs)
