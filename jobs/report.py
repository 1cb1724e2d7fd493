"""The report of a run, at any point of it: `python -m jobs.report RUN` writes report.html, report.md and report.csv into its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs import figures, pages, render, scalars
from jobs.command import data_root, main, parser
from jobs.findings import Findings, gather
from jobs.runs import find_run
from serl.files import write_atomic
from serl.rundir import Run, RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a report lies."""

    html: Path
    markdown: Path
    csv: Path


def write_report(run: Run) -> tuple[Paths, Table]:
    """Write the report and the rounds' TensorBoard scalars anew; returns where, and the table for a terminal."""
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
        raise RunError(f"{run.root}: the report cannot be written ({e.strerror}); make room, or the folder writable, and write it again") from e
    return paths, _summary(findings)


def _summary(findings: Findings) -> Table:
    """One row per round. Text objects throughout: nothing in a name or a figure is taken for markup."""
    header, lines = pages.summary_table(findings)
    table = Table(box=None, pad_edge=False, caption=Text(render.visible(pages.headline(findings), render.MAX_CODE)), caption_justify="left")
    for name in header:
        table.add_column(Text(render.visible(name)), justify="right")
    for cells in lines:
        table.add_row(*(Text(render.visible(c)) for c in cells))
    return table


def body(argv: Sequence[str]) -> int:
    p = parser("report", "Write the report of a run, finished or not.")
    p.add_argument("run", help="a run's name, or its folder")
    args = p.parse_intermixed_args(argv)
    paths, summary = write_report(find_run(args.run, data_root(args)))
    console = Console()
    console.print(summary)
    console.print(f"report: {paths.html}", markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    main(body)
