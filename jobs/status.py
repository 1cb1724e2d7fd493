"""How far runs are: `python -m jobs.status [RUN] [--watch] [--json]`; without RUN, every run under the data
root.

State words: done; running (a launcher here, or jobs on nodes); queued (jobs wait, nothing runs yet); held (a
job held itself after fruitless attempts, somebody held it, or the run's own safety rules did); failed (a
stage failed and nothing is left that would try again); stopped (nobody runs it; resume does).

JSON, with RUN: `run folder digest state fraction eta_s stages queue held failures halted queue_unknown safety
cost`; a stage has `name shards_done num_shards fraction seconds eta_s counts`, `queue` counts jobs by Slurm's
state, `queue_unknown` says why nobody knows, `safety` has the vitals and alarms of each round that safety has
looked at; `cost` says what was used and lost, by cause (seconds of tasks), in all and by stage,
and what was planned. Without RUN: `runs`, a list of the same but for `cost`; a damaged one has `run folder
state fault`.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobs.costs.accounting import account
from jobs.costs.ledger import ledger
from jobs.reporting.vitals import status_lines
from jobs.runs.find import find_run
from jobs.runs.progress import bar, span, status_table
from jobs.runs.state import Looks, State, state_of
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import table
from serl.run.rundir import RunError

WATCH_S = 2.0
WATCH_SLURM_S = 30.0  # squeue asks the controller: rarely
COLOURS = {
    "done": "green", "running": "bold", "queued": "cyan", "held": "yellow", "failed": "red", "stopped": "dim",
    "damaged": "red",
}  # fmt: skip
GOES_ON = ("running", "queued")
COLUMNS = ("run", "state", ">shards", "", "at work", ">left", "queue")


def body(argv: Sequence[str]) -> int:
    p = parser("status", "How far a run is, or all runs are.")
    p.add_argument("run", nargs="?", help="a run's name, or its folder; without it, all runs are listed")
    p.add_argument("--watch", action="store_true", help="keep looking until nothing runs or waits any more")
    args = p.parse_intermixed_args(argv)
    data = data_root(args)
    one = find_run(args.run, data) if args.run else None
    looks = Looks(ask=one is not None and not args.watch)
    if args.json and one:
        return Answer(fields=state_of(one).facts() | {"cost": ledger(one, live=True).facts()})
    if args.json:
        states, faults = looks.everything(data)
        return Answer(fields={"runs": [*(s.facts() for s in states), *map(_damage, faults.items())]})
    console = Console()
    live = args.watch and console.is_terminal
    with Live(console=console, auto_refresh=False) if live else contextlib.nullcontext() as board:
        while True:
            states, faults = (looks([one]), {}) if one else looks.everything(data)
            page = _page(states[0]) if one else _list(states, faults, data)
            if live:
                board.update(Group(*page), refresh=True)
            else:
                for part in page:
                    console.print(part, soft_wrap=isinstance(part, Text))
            if not args.watch or not any(s.word in GOES_ON for s in states):
                return 0
            time.sleep(WATCH_SLURM_S if any(s.activity.queued for s in states) else WATCH_S)


def _damage(fault: tuple[Path, RunError]) -> dict[str, object]:
    """A run that cannot be read, as JSON."""
    root, e = fault
    return {"run": root.name, "folder": str(root), "state": "damaged", "fault": str(e)}


def _page(state: State) -> list[RenderableType]:
    """One run: a line for each stage, the queue, what failed, and what to do next."""
    queued = state.activity.queued
    lines: list[RenderableType] = [status_table(state.stages, time.time())]
    if queued:  # a reason why something waits may never end
        words = (f"pending {q.where}" if q.state == "PENDING" else q.state.lower() for q in queued)
        kinds = ", ".join(f"{n} {word}" for word, n in Counter(words).items())
        nodes = ", ".join(sorted({q.where for q in queued if q.state == "RUNNING"})) or "none"
        lines.append(Text(f"in the queue: {kinds}; nodes {nodes}"))
    lines += [
        Text(f"job {q.id} will not start: {q.where}; jobs.resume replaces it") for q in queued if q.held
    ]
    if state.activity.silence:
        lines.append(Text(f"the queue is unknown: {state.activity.silence}", style="red"))
    lines += status_lines(state.run)
    lines += [Text(line, style="red") for line in state.causes()]
    used = account(state.run, live=bool(state.activity)).total
    lines += [Text(used.sentence())] if used.attempts else []
    return [*lines, Text(_sentence(state))]


def _sentence(state: State) -> str:
    """What the state means for whoever reads it, and what to do."""
    name, report = state.run.root.name, state.run.root / "report.html"
    resume, eta = f"`python -m jobs.resume {name}`", span(state.eta_s(time.time()))
    match state.word:
        case "done" if report.exists():
            return f"{name} is done; report: {report}"
        case "done":
            return f"{name} is done; write its report: `python -m jobs.report {name}`"
        case "running":
            return f"{name} is running" + (f"; about {eta} left" if eta else "")
        case "queued":
            return f"{name} is queued"
        case "held":
            why = "" if state.halt else f"; its jobs.logs say why, {resume} submits what is missing anew"
            return f"{name} is held{why}"
        case "failed":
            return f"{name} has failed; see `python -m jobs.logs {name}`, mend the cause and {resume}"
        case "stopped":
            return f"{name} is stopped; continue it with {resume}"


def _list(states: Sequence[State], faults: dict[Path, RunError], data: Path) -> list[RenderableType]:
    if not states and not faults:
        return [Text(f"no runs in {data / 'runs'}; start one with `python -m jobs.launch CONFIG`")]
    rows = [_row(s) for s in states]
    rows += [(root.name, Text("damaged", style=COLOURS["damaged"])) for root in faults]
    return [table(COLUMNS, rows), *(Text(str(e), style="red") for e in faults.values())]


def _row(s: State) -> tuple[str | Text, ...]:
    work = ", ".join(g.name for g in s.stages if g.going)
    queue = ", ".join(f"{n} {k.lower()}" for k, n in Counter(q.state for q in s.activity.queued).items())
    word, shards = Text(s.word, style=COLOURS[s.word]), f"{s.shards_done}/{s.num_shards}"
    return s.run.root.name, word, shards, bar(s.fraction, 20), work, span(s.eta_s(time.time())), queue


if __name__ == "__main__":
    main(body)
