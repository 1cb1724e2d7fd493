"""What every attempt at a shard said: `python -m jobs.logs RUN [STAGE [SHARD]] [--attempt A] [--follow]`.

Without STAGE, one line for each attempt at each shard: where it ran, for how long, how it ended. With it, the
logs of every rank and the run's own events (marked *) in one timeline, under a heading for each attempt.
STAGE is a stage as the run file calls it, of every round, or a job's name as in status, like r001-NAME.

JSON: `attempts`, each `shard attempt hosts ranks began ended how`; with STAGE also `lines`, each `time rank
text`.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from jobs.runs.attempts import SILENT, Attempt, Line, attempts
from jobs.runs.find import find_run
from jobs.runs.progress import span
from jobs.runs.state import activities
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say, table
from jobs.shell.visible import visible
from serl.run.rundir import Run, RunError, Shard
from serl.stages.kind import job_name

FOLLOW_S = 2.0
MAX_LINE = 2000
COLUMNS = ("shard", "attempt", "on", "began", "lasted", "how it ended")
BEGAN = "%Y-%m-%d %H:%M:%S"


def body(argv: Sequence[str]) -> int:
    p = parser("logs", "Every attempt at a shard, in one timeline.")
    p.add_argument("run", help="a run's name, or its folder")
    p.add_argument(
        "stage", nargs="?", help="a stage, or a job like r001-NAME (default: a list of all attempts)"
    )
    p.add_argument("shard", nargs="?", type=int, help="which shard, from 0 (default: all)")
    p.add_argument("--attempt", help="of this attempt only")
    p.add_argument(
        "--follow", action="store_true", help="go on as more is written, until nobody runs the run"
    )
    args = p.parse_intermixed_args(argv)
    run = find_run(args.run, data_root(args))
    shards = chosen(run, args)
    if args.follow and not args.json:
        return _follow(run, shards, args.attempt)
    found = _found(run, shards, args.attempt)
    if args.attempt and not found:
        at = f"at {args.stage or 'any stage'} of {run.root.name}"
        raise RunError(f"no attempt {args.attempt} {at}; `python -m jobs.logs {run.root.name}` lists them")
    if args.stage:
        for attempt in found:
            say(_heading(attempt), style="bold")
            _print(attempt.lines, attempt)
    elif found:
        Console().print(table(COLUMNS, map(_row, found), folds=COLUMNS[-1:]))
    else:
        say(f"{run.root.name}: nothing has been tried yet")
    told = [_facts(a, lines=bool(args.stage)) for a in found]
    return Answer(fields={"run": run.root.name, "attempts": told})


def chosen(run: Run, args: argparse.Namespace) -> list[Shard]:
    """The shards that the arguments name, in the order of the plan."""
    stages = [s for s in run.config.stages if args.stage in (None, s.name, s.job)]
    if not stages:
        jobs = ", ".join(s.job for s in run.config.stages)
        raise RunError(f"{run.root.name} has no {args.stage}; it has {jobs}")
    shards = [shard for s in stages for shard in run.shards(s.round, s.name)]
    found = [shard for shard in shards if args.shard in (None, shard.index)]
    if not found:
        most = max(shard.index for shard in shards)
        raise RunError(f"shard {args.shard}: {args.stage} has shards 0 to {most}")
    return found


def _found(run: Run, shards: Sequence[Shard], only: str | None) -> list[Attempt]:
    return [a for tries in attempts(run, shards).values() for a in tries if only in (None, a.id)]


def _row(a: Attempt) -> tuple[str | Text, ...]:
    began = datetime.fromtimestamp(a.began).strftime("%m-%d %H:%M:%S") if a.lines else ""
    how = Text(visible(a.how), style="green" if a.how == "done" else "")
    return _short(a.shard), visible(a.id), visible(", ".join(a.hosts)), began, span(a.ended - a.began), how


def _short(shard: Shard) -> str:
    return f"{job_name(shard.round, shard.stage)} {shard.index}"


def _heading(a: Attempt, *, live: bool = False) -> str:
    began, ended = (datetime.fromtimestamp(t).astimezone() for t in (a.began, a.ended))
    until = f"{began:{BEGAN}} to {ended:%H:%M:%S %Z} ({span(a.ended - a.began)}): {a.how}"
    if live and a.how == SILENT:
        until = f"from {began:{BEGAN} %Z}"
    ranks = f", {len(a.ranks)} ranks" if len(a.ranks) > 1 else ""
    where = ", ".join(a.hosts) or "an unknown node"
    return visible(f"== {_short(a.shard)}, attempt {a.id} on {where}{ranks}, {until}", MAX_LINE)


def _print(lines: Sequence[Line], attempt: Attempt) -> None:
    several, console = len(attempt.ranks) > 1, Console()
    for line in lines:
        clock = datetime.fromtimestamp(line.time).strftime("%H:%M:%S")
        rank = f"{line.rank}| " if several else ""
        style = "cyan" if line.text.startswith("* ") else None
        say(f"{clock} {rank}{visible(line.text, MAX_LINE)}", style=style, console=console)


def _follow(run: Run, shards: Sequence[Shard], only: str | None) -> int:
    """What is new since the last look, until all that was asked for is done, or nobody is at work."""
    seen: set[tuple[str, int]] = set()
    last = ""
    while True:
        over = all(run.done(s) for s in shards) or not activities([run])[0]
        for attempt in _found(run, shards, only):
            fresh = [line for line in attempt.lines if (line.source, line.number) not in seen]
            seen |= {(line.source, line.number) for line in fresh}
            if fresh and last != f"{attempt.shard} {attempt.id}":
                say(_heading(attempt, live=not over), style="bold")
                last = f"{attempt.shard} {attempt.id}"
            _print(fresh, attempt)
        if over:
            return 0
        time.sleep(FOLLOW_S)


def _facts(a: Attempt, *, lines: bool) -> dict[str, object]:
    facts: dict[str, object] = {"shard": _short(a.shard), "attempt": a.id}
    facts |= {"hosts": list(a.hosts), "ranks": sorted(a.ranks)}
    facts |= {"began": a.began, "ended": a.ended, "how": a.how}
    if lines:
        facts["lines"] = [{"time": x.time, "rank": x.rank, "text": x.text} for x in a.lines]
    return facts


if __name__ == "__main__":
    main(body)
