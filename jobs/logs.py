"""What every attempt at a shard said: `python -m jobs.logs RUN [STAGE [SHARD]] [--round R] [--attempt A] [--follow]`.

Without STAGE, one line for each attempt at each shard: where it ran, for how long, how it ended. With it, the logs of every rank and the run's
own events (marked *) in one timeline, under a heading for each attempt. STAGE is a stage, of every round, or a job's name as in status,
like r001-respond.

JSON: `attempts`, each `shard attempt hosts ranks began ended how`; with STAGE also `lines`, each `time rank text`.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.plan.chain import job_name, steps
from jobs.reporting.visible import visible
from jobs.runs.attempts import SILENT, Attempt, Line, attempts
from jobs.runs.find import find_run
from jobs.runs.progress import span
from jobs.runs.state import activities
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.rundir import Run, RunError, Shard

FOLLOW_S = 2.0
MAX_LINE = 2000
BEGAN = "%Y-%m-%d %H:%M:%S"


def body(argv: Sequence[str]) -> int:
    p = parser("logs", "Every attempt at a shard, in one timeline.")
    p.add_argument("run", help="a run's name, or its folder")
    p.add_argument(
        "stage", nargs="?", help="a stage, or a job like r001-respond; without it, a list of all attempts"
    )
    p.add_argument("shard", nargs="?", type=int, help="which shard, from 0; without it, all")
    p.add_argument("--round", type=int, help="of this round only")
    p.add_argument("--attempt", help="of this attempt only")
    p.add_argument(
        "--follow", action="store_true", help="go on as more is written, until nobody runs the run"
    )
    args = p.parse_intermixed_args(argv)
    run = find_run(args.run, data_root(args))
    shards = chosen(run, args)
    console = Console(soft_wrap=True)
    if args.follow and not args.json:
        return _follow(run, shards, args.attempt, console)
    found = _found(run, shards, args.attempt)
    if args.attempt and not found:
        raise RunError(
            f"no attempt {args.attempt} at {args.stage or 'any stage'} of {run.root.name}; `python -m jobs.logs {run.root.name}` lists them"
        )
    if not args.stage:
        Console().print(_overview(found) if found else Text(f"{run.root.name}: nothing has been tried yet"))
    else:
        for attempt in found:
            console.print(_heading(attempt), markup=False, highlight=False, style="bold")
            _print(attempt.lines, attempt, console)
    return Answer(
        fields={"run": run.root.name, "attempts": [_facts(a, lines=bool(args.stage)) for a in found]}
    )


def chosen(run: Run, args: argparse.Namespace) -> list[Shard]:
    """The shards that the arguments name, in the order of the plan."""
    wanted = [
        (r, s)
        for r, s in steps(run.config)
        if args.stage in (None, s, job_name(r, s)) and args.round in (None, r)
    ]
    if not wanted:
        names = ", ".join(job_name(r, s) for r, s in steps(run.config))
        asked = " of ".join(
            [
                *([args.stage] if args.stage else []),
                *([f"round {args.round}"] if args.round is not None else []),
            ]
        )
        raise RunError(f"{run.root.name} has no {asked}; it has {names}")
    shards = [shard for r, s in wanted for shard in run.shards(r, s) if args.shard in (None, shard.index)]
    if not shards:
        raise RunError(
            f"shard {args.shard}: {args.stage} has shards 0 to {max(len(run.shards(r, s)) for r, s in wanted) - 1}"
        )
    return shards


def _found(run: Run, shards: Sequence[Shard], only: str | None) -> list[Attempt]:
    return [a for tries in attempts(run, shards).values() for a in tries if only in (None, a.id)]


def _overview(found: Sequence[Attempt]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("shard", "attempt", "on", "began", "lasted", "how it ended"):
        table.add_column(name, no_wrap=name != "how it ended")
    for a in found:
        began = datetime.fromtimestamp(a.began).strftime("%m-%d %H:%M:%S")
        how = Text(visible(a.how), style="green" if a.how == "done" else "")
        table.add_row(
            _short(a.shard),
            Text(visible(a.id)),
            Text(visible(", ".join(a.hosts))),
            began,
            span(a.ended - a.began),
            how,
        )
    return table


def _short(shard: Shard) -> str:
    return f"{job_name(shard.round, shard.stage)} {shard.index}"


def _heading(a: Attempt, *, live: bool = False) -> str:
    began, ended = (datetime.fromtimestamp(t).astimezone() for t in (a.began, a.ended))
    ranks = f", {len(a.ranks)} ranks" if len(a.ranks) > 1 else ""
    until = (
        f"from {began:{BEGAN} %Z}"
        if live and a.how == SILENT
        else f"{began:{BEGAN}} to {ended:%H:%M:%S %Z} ({span(a.ended - a.began)}): {a.how}"
    )
    return visible(
        f"== {_short(a.shard)}, attempt {a.id} on {', '.join(a.hosts) or 'an unknown node'}{ranks}, {until}",
        MAX_LINE,
    )


def _print(lines: Sequence[Line], attempt: Attempt, console: Console) -> None:
    several = len(attempt.ranks) > 1
    for line in lines:
        clock = datetime.fromtimestamp(line.time).strftime("%H:%M:%S")
        style = "cyan" if line.text.startswith("* ") else None
        console.print(
            f"{clock} {f'{line.rank}| ' if several else ''}{visible(line.text, MAX_LINE)}",
            markup=False,
            highlight=False,
            style=style,
        )


def _follow(run: Run, shards: Sequence[Shard], only: str | None, console: Console) -> int:
    """What is new since the last look, under the heading of its attempt; ends when everything asked for is done, or nobody is at work."""
    seen: set[tuple[str, int]] = set()
    last: str | None = None
    while True:
        over = all(run.done(s) for s in shards) or not activities([run])[0]
        for attempt in _found(run, shards, only):
            fresh = [line for line in attempt.lines if (line.source, line.number) not in seen]
            seen |= {(line.source, line.number) for line in fresh}
            if fresh and last != f"{attempt.shard} {attempt.id}":
                console.print(_heading(attempt, live=not over), markup=False, highlight=False, style="bold")
                last = f"{attempt.shard} {attempt.id}"
            _print(fresh, attempt, console)
        if over:
            return 0
        time.sleep(FOLLOW_S)


def _facts(a: Attempt, *, lines: bool) -> dict[str, object]:
    facts: dict[str, object] = {
        "shard": _short(a.shard),
        "attempt": a.id,
        "hosts": list(a.hosts),
        "ranks": sorted(a.ranks),
    }
    facts |= {"began": a.began, "ended": a.ended, "how": a.how}
    return facts | (
        {"lines": [{"time": line.time, "rank": line.rank, "text": line.text} for line in a.lines]}
        if lines
        else {}
    )


if __name__ == "__main__":
    main(body)
