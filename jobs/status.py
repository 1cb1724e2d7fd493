"""How far a run is: `python -m jobs.status [RUN] [--watch] [--json]`; without RUN, every run under the data root."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from jobs.command import data_root, main, parser
from jobs.progress import Look, StageState, status_table
from jobs.runs import find_run, launcher_of, list_runs
from serl.rundir import Run, RunError

WATCH_S = 2.0


def body(argv: Sequence[str]) -> int:
    p = parser("status", "How far a run is.")
    p.add_argument("run", nargs="?", help="a run's name, or its folder; without it, all runs are listed")
    p.add_argument("--watch", action="store_true", help="keep looking until the run is done or nobody runs it")
    p.add_argument("--json", action="store_true", help="machine-readable")
    args = p.parse_args(argv)
    data = data_root(args)
    console = Console()
    if args.run is None:
        _list(list_runs(data), data, console, as_json=args.json)
        return 0
    run = find_run(args.run, data)
    look = Look(run)
    states = look(live=launcher_of(run.root) is not None)
    if args.json:
        print(json.dumps(_facts(run, states)))
        return 0
    if args.watch:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                running = launcher_of(run.root) is not None
                live.update(status_table(states, time.time()), refresh=True)
                if not running or all(s.done for s in states):
                    break
                time.sleep(WATCH_S)
                states = look(live=running)
    else:
        console.print(status_table(states, time.time()))
    console.print(_sentence(run, states), highlight=False, soft_wrap=True)
    return 0


def _state(run: Run, states: Sequence[StageState]) -> str:
    if all(s.done for s in states):
        return "done"
    return "running" if launcher_of(run.root) else "stopped"


def _sentence(run: Run, states: Sequence[StageState]) -> str:
    match _state(run, states):
        case "done":
            return f"{run.root.name} is done; report: {run.root / 'report.html'}"
        case "running":
            return f"{run.root.name} is running"
        case _:
            return f"{run.root.name} is stopped; continue it with `python -m jobs.resume {run.root.name}`"


def _facts(run: Run, states: Sequence[StageState]) -> dict:
    stages = [
        {"name": s.name, "shards_done": s.shards_done, "num_shards": s.num_shards, "fraction": round(s.fraction, 4), "seconds": s.seconds, "counts": dict(s.counts)}
        for s in states
    ]
    return {"run": run.root.name, "folder": str(run.root), "state": _state(run, states), "stages": stages}


def _list(roots: Sequence[Path], data: Path, console: Console, *, as_json: bool) -> None:
    looks, faults = [], {}
    for root in roots:
        try:
            run = Run.open(root)
            looks.append((run, Look(run)()))
        except RunError as e:  # one damaged run must not hide the others
            faults[root] = str(e)
    if as_json:
        damaged = [{"run": root.name, "folder": str(root), "state": "damaged", "fault": fault} for root, fault in faults.items()]
        print(json.dumps([_facts(run, states) for run, states in looks] + damaged))
        return
    if not roots:
        console.print(f"no runs in {data / 'runs'}; start one with `python -m jobs.launch CONFIG`", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "shards", "configuration"):
        table.add_column(column)
    for run, states in looks:
        done, total = sum(s.shards_done for s in states), sum(s.num_shards for s in states)
        table.add_row(run.root.name, _state(run, states), f"{done}/{total}", run.digest)
    for root in faults:
        table.add_row(root.name, "damaged", "", "")
    console.print(table)
    for fault in faults.values():
        console.print(fault, style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(body)
