"""The report of a run, at any point of it: `python -m jobs.report RUN` writes report.html, report.md and
report.csv into its folder.

`python -m jobs.report RUN[:ROUND] RUN[:ROUND] ...` sets several models side by side, in `<data
root>/reports/<their names>/`. With --json: {run or models, html, markdown, csv, headline}, and of one run
`halted` (a sentence, or null) and `trackers` (a sentence for each).
"""

import argparse
from collections.abc import Sequence
from typing import get_args

from rich.console import Console

from jobs.chain.launched import last_cluster
from jobs.plan.cluster import Tracker, load_cluster
from jobs.reporting.side_by_side import side_by_side
from jobs.reporting.trackers import mirror
from jobs.reporting.vitals import halt
from jobs.reporting.written import write_report, write_side_by_side
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.rundir import Run


def body(argv: Sequence[str]) -> int:
    p = parser("report", "Write the report of a run, finished or not; of several, their models side by side.")
    p.add_argument(
        "run",
        nargs="+",
        help="a run's name, or its folder; beside others also RUN:ROUND, RUN:ROUND@TURN for what was "
        "published within it, or RUN:best for the best of all on validation",
    )
    p.add_argument(
        "--tracker",
        action="append",
        choices=get_args(Tracker),
        default=[],
        help="mirror the finished rounds of a run there too, beside where its cluster file says",
    )
    args = p.parse_intermixed_args(argv)
    data = data_root(args)
    if len(args.run) == 1:
        run = find_run(args.run[0], data)
        paths, summary = write_report(run)
        halted, sent = next(iter(halt(run)), None), mirror(run, _trackers(run, args))
        told: dict[str, object] = {"run": run.root.name, "halted": halted, "trackers": sent}
    else:
        found, halted, sent = side_by_side(args.run, data), None, []
        paths, summary = write_side_by_side(found, data)
        told = {"models": [s.label for s in found.settings]}
    console = Console()
    console.print(summary)
    if halted:
        console.print(halted, markup=False, highlight=False, soft_wrap=True, style="red")
    for line in [f"report: {paths.html}", *sent]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    files = {"html": str(paths.html), "markdown": str(paths.markdown), "csv": str(paths.csv)}
    return Answer(fields=told | files | {"headline": str(summary.caption)})


def _trackers(run: Run, args: argparse.Namespace) -> list[Tracker]:
    """Of the cluster file that is named here, of the one that the run was launched with where that was on
    Slurm, and those asked for.
    """
    launched = last_cluster(run)
    return [*load_cluster(args.cluster).trackers, *(launched.trackers if launched else ()), *args.tracker]


if __name__ == "__main__":
    main(body)
