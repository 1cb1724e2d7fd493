"""How far a run is: `python -m jobs.status [RUN] [--watch] [--json]`; without RUN, every run under the data root."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs import slurm
from jobs.command import data_root, main, parser
from jobs.progress import Look, StageState, status_table
from jobs.queue import Queued
from jobs.runs import Process, find_run, launcher_of, list_runs
from jobs.task import BLOCKED, failures
from serl.rundir import Run, RunError

WATCH_S = 2.0
WATCH_SLURM_S = 30.0  # squeue asks the controller: rarely


def body(argv: Sequence[str]) -> int:
    p = parser("status", "How far a run is.")
    p.add_argument("run", nargs="?", help="a run's name, or its folder; without it, all runs are listed")
    p.add_argument("--watch", action="store_true", help="keep looking until the run is done or nobody runs it")
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_intermixed_args(argv)
    data = data_root(args)
    console = Console()
    if args.run is None:
        _list(list_runs(data), data, console, as_json=args.json)
        return 0
    run = find_run(args.run, data)
    look = Look(run)
    while True:
        activity = _activity(run)
        states = look(live=bool(activity))
        if args.json:
            print(json.dumps(_facts(run, states, activity)))
            return 0
        if args.watch and console.is_terminal:
            console.clear()
        _show(run, states, activity, console)
        if not args.watch or _state(states, activity) != "running":
            return 0
        time.sleep(WATCH_S if activity.launcher else WATCH_SLURM_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Who is at work on a run: a launcher here, jobs in Slurm's queue, both, or nobody."""

    launcher: Process | None
    queued: tuple[Queued, ...]
    silence: str = ""

    def __bool__(self) -> bool:
        return self.launcher is not None or bool(self.queued)


def _activity(run: Run) -> Activity:
    """A controller that does not answer hides the queue, not the run."""
    try:
        return Activity(launcher=launcher_of(run.root), queued=tuple(slurm.live(run)))
    except slurm.SlurmError as e:
        return Activity(launcher=launcher_of(run.root), queued=(), silence=str(e))


def _show(run: Run, states: Sequence[StageState], activity: Activity, console: Console) -> None:
    console.print(status_table(states, time.time()))
    if activity.queued:
        kinds = Counter(q.state.lower() for q in activity.queued)
        nodes = sorted({q.where for q in activity.queued if q.state == "RUNNING"})
        console.print(f"in the queue: {', '.join(f'{n} {k}' for k, n in kinds.items())}; nodes {', '.join(nodes) or 'none'}", markup=False, highlight=False)
        for q in activity.queued:
            if q.held:
                console.print(f"job {q.id} will not start: {q.where}; jobs.resume replaces it", markup=False, highlight=False)
    if activity.silence:
        console.print(f"the queue is unknown: {activity.silence}", style="red", markup=False, highlight=False, soft_wrap=True)
    for line in _causes(failures(run)):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(_sentence(run, _state(states, activity)), markup=False, highlight=False, soft_wrap=True)


def _causes(failed: Sequence[dict]) -> list[str]:
    """What went wrong, without all that only waited for it, if anything did."""
    own = [f for f in failed if not f["reason"].startswith(BLOCKED)] or list(failed)
    blocked = [f"{len(failed) - len(own)} shards that need them gave up waiting"] if len(own) < len(failed) else []
    return [f"{f['shard']}: {f['reason']}" for f in own] + blocked


def _state(states: Sequence[StageState], activity: Activity) -> str:
    if all(s.done for s in states):
        return "done"
    return "running" if activity else "stopped"


def _sentence(run: Run, state: str) -> str:
    match state:
        case "done":
            report = run.root / "report.html"
            return f"{run.root.name} is done; " + (f"report: {report}" if report.exists() else f"write its report: `python -m jobs.report {run.root.name}`")
        case "running":
            return f"{run.root.name} is running"
        case _:
            return f"{run.root.name} is stopped; continue it with `python -m jobs.resume {run.root.name}`"


def _facts(run: Run, states: Sequence[StageState], activity: Activity) -> dict:
    stages = [
        {"name": s.name, "shards_done": s.shards_done, "num_shards": s.num_shards, "fraction": round(s.fraction, 4), "seconds": s.seconds, "counts": dict(s.counts)}
        for s in states
    ]
    queue = Counter(q.state for q in activity.queued)
    facts = {"run": run.root.name, "folder": str(run.root), "state": _state(states, activity), "stages": stages}
    return facts | {"queue": queue, "failures": [f["shard"] + ": " + f["reason"] for f in failures(run)]}


def _list(roots: Sequence[Path], data: Path, console: Console, *, as_json: bool) -> None:
    looks, faults = [], {}
    for root in roots:
        try:
            run = Run.open(root)
            looks.append((run, Look(run)(), _activity(run)))
        except RunError as e:  # one damaged run must not hide the others
            faults[root] = str(e)
    if as_json:
        damaged = [{"run": root.name, "folder": str(root), "state": "damaged", "fault": fault} for root, fault in faults.items()]
        print(json.dumps([_facts(*look) for look in looks] + damaged))
        return
    if not roots:
        console.print(f"no runs in {data / 'runs'}; start one with `python -m jobs.launch CONFIG`", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "shards", "configuration"):
        table.add_column(column)
    for run, states, activity in looks:
        done, total = sum(s.shards_done for s in states), sum(s.num_shards for s in states)
        table.add_row(run.root.name, _state(states, activity), f"{done}/{total}", run.digest)
    for root in faults:
        table.add_row(root.name, "damaged", "", "")
    console.print(table)
    for fault in faults.values():
        console.print(fault, style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(body)
