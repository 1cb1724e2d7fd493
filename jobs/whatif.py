"""When would it be done, on other nodes and in other weather? `python -m jobs.whatif CONFIG [--nodes 2,4,8]`

Plays the plan of a run many times by chance, from what earlier runs on the cluster took
(`jobs.costs.calibration`). The table has a line for every combination of the comma-separated values, and
lines for the first of them with other numbers of shards, sizes of parts and intervals between checkpoints:
the median and the 95 % quantile of how long it takes, and the hours of tasks that it uses, of which
start-ups, saves and what is taken away are wasted.
Nothing is submitted or written.

A node is as much as the widest task takes of one: --nodes 4 means that four single-node tasks, or one
four-node training, run at once. On this machine it means its cores or GPUs.

JSON: `plan`, and `lines`: a list of `nodes array_limit preempt_per_hour change refused seconds` (low, median,
high) `used_s wasted_s gpu_hours cheapest`.
"""

import argparse
import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from jobs.costs.alternatives import Line, WhatIf
from jobs.costs.loads import Planner
from jobs.costs.simulate import HOUR_S
from jobs.plan.cluster import load_cluster
from jobs.shell.command import Answer, data_root, load_run, main, parser
from jobs.shell.screen import say, table

COLUMNS = (
    ">nodes", ">array", ">taken/h", ">done, h", ">95 %, h", ">used, h", ">wasted, h", ">GPU-h", "with",
)  # fmt: skip


def body(argv: Sequence[str]) -> Answer:
    args = _parser().parse_intermixed_args(argv)
    data = data_root(args)
    planner = Planner.of(load_run(args.what, args.override), load_cluster(args.cluster), data)
    seen, known = planner.world(), planner.known
    asked = itertools.product(
        args.nodes or (seen.slots,),
        args.array_limit or (seen.array_limit,),
        args.preempt_per_hour or (seen.preempt_per_hour,),
    )
    names = ("slots", "array_limit", "preempt_per_hour")
    what = WhatIf(path=args.what, overrides=args.override, data=data, planner=planner)
    lines = what.lines([replace(seen, **dict(zip(names, values))) for values in asked])
    name, runs = planner.config.name, len(known.taught)
    say(f"{name} on {known.cluster}, as {known.model} was measured there in {runs} runs")
    Console().print(table(COLUMNS, map(_row, lines), folds=COLUMNS[-1:]))
    return Answer(fields={"plan": name, "lines": [asdict(line) for line in lines]})


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "whatif", "When a run would be done on other nodes and preemption rates; what would cost least."
    )
    p.add_argument("what", metavar="CONFIG", type=Path, help="a run file")
    p.add_argument("override", nargs="*", help="changes to the run file, like respond.shards=32")
    for option, kind, words in (
        ("--nodes", _counts, "nodes to try, like 2,4,8 (default: all; here, this machine)"),
        ("--array-limit", _counts, "tasks of one array at once (default: the cluster file's)"),
        ("--preempt-per-hour", _rates, "how often a node is taken away (default: as runs saw it)"),
    ):
        p.add_argument(option, type=kind, help=words)
    return p


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers from 1, with commas between them."""
    counts = text.split(",")
    if not all(n.isascii() and n.isdigit() and int(n) for n in counts):
        raise argparse.ArgumentTypeError(f"{text}: give whole numbers of at least one, like 2,4,8")
    return tuple(map(int, counts))


def _rates(text: str) -> tuple[float, ...]:
    with contextlib.suppress(ValueError):
        rates = tuple(map(float, text.split(",")))
        if all(0.0 <= rate < math.inf for rate in rates):
            return rates
    raise argparse.ArgumentTypeError(f"{text}: give numbers of at least 0, like 0,2,8")


def _row(line: Line) -> list[str]:
    where = [str(line.nodes or "all"), str(line.array_limit or "none"), f"{line.preempt_per_hour:.2g}"]
    if line.seconds is None:
        return [*where, *[""] * 5, f"not there: {line.refused}"]
    seconds = (line.seconds.median, line.seconds.high, line.used_s, line.wasted_s)
    hours = [f"{s / HOUR_S:.2f}" for s in seconds]
    change = (line.change or "as it is") + ("  cheapest" if line.cheapest else "")
    return [*where, *hours, f"{line.gpu_hours:.2f}", change]


if __name__ == "__main__":
    main(body)
