"""The report of a run, at any point of it: `python -m jobs.report RUN` writes report.html, report.md and report.csv into its folder.

`python -m jobs.report RUN[:ROUND] RUN[:ROUND] ...` sets several models side by side, in `<data root>/reports/<their names>/`.
With --json: {run or models, html, markdown, csv, headline}, and of one run `halted`
(a sentence, or null) and `trackers` (a sentence for each).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from jobs.chain.slurm import last_cluster
from jobs.costs.forecast import learn_from
from jobs.plan.cluster import Tracker, load_cluster
from jobs.reporting import figures, pages, render, scalars, side_by_side_page
from jobs.reporting.findings import Findings, gather
from jobs.reporting.side_by_side import SideBySide, side_by_side
from jobs.reporting.trackers import mirror
from jobs.reporting.vitals import halt
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a report lies."""

    html: Path
    markdown: Path
    csv: Path


def write_report(run: Run) -> tuple[Paths, Table]:
    """Write the report and the rounds' TensorBoard scalars anew; returns where, and the table for a terminal."""
    try:
        learn_from(run)
    except OSError as e:
        raise RunError(
            f"{run.data_root / 'calibration'}: cannot be written ({e.strerror}); make room, or the folder writable, and write the report again"
        ) from e
    findings = gather(run)
    rows = scalars.rows(findings)
    blocks = pages.page(findings, figures.draw(findings))
    title = f"Report of {run.root.name}"
    paths = Paths(html=run.root / "report.html", markdown=run.root / "report.md", csv=run.root / "report.csv")
    try:
        write_atomic(paths.csv, scalars.to_csv(rows))
        write_atomic(paths.markdown, render.to_markdown(title, blocks).encode())
        write_atomic(paths.html, render.to_html(title, blocks).encode())
        scalars.write_tensorboard(run, findings, rows)
    except OSError as e:
        raise RunError(
            f"{run.root}: the report cannot be written ({e.strerror}); make room, or the folder writable, and write it again"
        ) from e
    return paths, _summary(findings)


def _summary(findings: Findings) -> Table:
    """One row per round."""
    header, lines = pages.summary_table(findings)
    return render.to_terminal(
        render.Table(header=header, rows=lines, numeric=frozenset(range(len(header)))),
        pages.headline(findings),
    )


def write_side_by_side(found: SideBySide, data: Path) -> Paths:
    """Write several models' common report into a folder of its own; `pairs.csv` holds the tests."""
    folder = data / "reports" / found.name
    paths = Paths(html=folder / "report.html", markdown=folder / "report.md", csv=folder / "report.csv")
    title, blocks = "Models side by side", side_by_side_page.page(found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(paths.csv, side_by_side_page.scores_csv(found))
        write_atomic(folder / "pairs.csv", side_by_side_page.pairs_csv(found))
        write_atomic(paths.markdown, render.to_markdown(title, blocks).encode())
        write_atomic(paths.html, render.to_html(title, blocks).encode())
    except OSError as e:
        raise RunError(
            f"{folder}: the report cannot be written ({e.strerror}); choose a writable data root with --data or $SERL_DATA"
        ) from e
    return paths


def body(argv: Sequence[str]) -> int:
    p = parser("report", "Write the report of a run, finished or not; of several, their models side by side.")
    p.add_argument(
        "run",
        nargs="+",
        help="a run's name, or its folder; beside others also RUN:ROUND, or RUN:best for the best round on validation",
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
    console = Console()
    if len(args.run) == 1:
        run = find_run(args.run[0], data)
        paths, summary = write_report(run)
        told: dict[str, object] = {
            "run": run.root.name,
            "halted": next(iter(halt(run)), None),
            "trackers": mirror(run, _trackers(run, args)),
        }
    else:
        found = side_by_side(args.run, data)
        paths = write_side_by_side(found, data)
        summary = render.to_terminal(
            side_by_side_page.summary_table(found), " ".join(side_by_side_page.headlines(found))
        )
        told = {"models": [m.name for m in found.models]}
    console.print(summary)
    if told.get("halted"):
        console.print(told["halted"], markup=False, highlight=False, soft_wrap=True, style="red")
    for line in [f"report: {paths.html}", *told.get("trackers", [])]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return Answer(
        fields=told
        | {
            "html": str(paths.html),
            "markdown": str(paths.markdown),
            "csv": str(paths.csv),
            "headline": str(summary.caption),
        }
    )


def _trackers(run: Run, args: argparse.Namespace) -> list[Tracker]:
    """Of the cluster file that is named here, of the one that the run was launched with where that was on Slurm, and those asked for."""
    launched = last_cluster(run)
    return [*load_cluster(args.cluster).trackers, *(launched.trackers if launched else ()), *args.tracker]


if __name__ == "__main__":
    main(body)
