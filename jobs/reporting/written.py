"""Reports as files: what launch, report and sweep ask for. Each writes everything anew and may be called at
any point.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from evaluation.seeds import ALPHA
from jobs.costs.forecast import learn_from
from jobs.costs.ledger import cost_blocks
from jobs.plan.cluster import Tracker
from jobs.reporting import (
    board,
    contest_figures,
    contest_page,
    figures,
    plots,
    render,
    run_page,
    scalars,
    side_by_side,
)
from jobs.reporting.findings import Findings, gather
from jobs.reporting.policies import Contest
from jobs.reporting.side_by_side import SideBySide
from jobs.reporting.sweep_findings import gather_sweep
from jobs.reporting.trackers import mirror
from jobs.reporting.vitals import halt, vital_blocks
from jobs.sweeps.trials import Sweep, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError

AGAIN = "make room, or the folder writable, and write the report again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a report lies."""

    html: Path
    markdown: Path
    csv: Path


def conclude(run: Run, trackers: Sequence[Tracker]) -> tuple[Table, list[str]]:
    """At the end of a run: write its report, and mirror its figures. Returns a table for a terminal, and
    lines that say where everything went.
    """
    paths, summary = write_report(run)
    return summary, [f"report: {paths.html}", *mirror(run, trackers)]


def write_report(run: Run) -> tuple[Paths, Table]:
    """The report of a run and its TensorBoard scalars; returns where, and the table for a terminal."""
    with _writing(run.data_root / "calibration", AGAIN):
        learn_from(run)
    found = gather(run)
    rows, turns = scalars.rows(found), scalars.turns(found)
    more = {"turns.csv": render.to_csv(turns)} if turns else {}
    facts = {
        "title": f"Report of {run.root.name}",
        "page": run_page,
        "findings": found,
        "rows": rows,
        "plots": plots.drawn(figures.plots_of(found)),
        "halted": halt(run),
        "vitals": vital_blocks(run),
        "cost": list(cost_blocks(run)),
        "folder": shlex.quote(str(run.root)),
        "alpha": ALPHA,
    }
    with _writing(run.root, AGAIN):
        paths = _write(
            run.root, "run.md", facts, {"report.csv": render.to_csv(scalars.csv_table(rows))} | more
        )
        write_tensorboard(run, found, rows)
    return paths, render.to_terminal(run_page.summary_table(found, rows), run_page.headline(found))


def write_tensorboard(run: Run, found: Findings, rows: Sequence[scalars.Row]) -> None:
    """`tensorboard/rounds` with the round as step, and where there are turns `tensorboard/turns`."""
    ended = {r.round: max((s.ended for s in r.stages), default=0.0) for r in found.rounds}
    told = [board.Scalar(row.tag, row.round, row.value, ended[row.round]) for row in rows]
    board.write_scalars(run.root / "tensorboard" / "rounds", told)
    turns = [
        board.Scalar(f"{stage}/{name}", at, value, ended[round])
        for round, stage, _, at, name, value in scalars.turns(found).rows
    ]
    if turns:
        board.write_scalars(run.root / "tensorboard" / "turns", turns)


def write_side_by_side(found: SideBySide, data: Path) -> tuple[Paths, Table]:
    """Several models' common report in a folder of its own, where `pairs.csv` holds the tests; returns as
    `write_report` does.
    """
    folder, told = data / "reports" / found.name, side_by_side.headlines(found)
    facts = _contest(found, "Models side by side", told, side_by_side.facts(found))
    tables = {"report.csv": side_by_side.score_rows(found), "pairs.csv": contest_page.pair_rows(found.pairs)}
    with _writing(folder, "choose a writable data root with --data or $SERL_DATA"):
        paths = _write(folder, "contest.md", facts, {name: render.to_csv(t) for name, t in tables.items()})
    return paths, render.to_terminal(contest_page.summary_table(found), " ".join(told))


def write_sweep_report(sweep: Sweep, data: Path) -> tuple[tuple[Path, ...], Table]:
    """A sweep's report, with TensorBoard's hyperparameter table; returns the files, the page first, and the
    table for a terminal.
    """
    found, folder = gather_sweep(sweep, data), sweep_dir(data, sweep.name)
    told = contest_page.headline(found)
    facts = _contest(found, f"Sweep {sweep.name}", told, {"unpaired": (), "metrics": None, "asked": None})
    tables = {
        "report.csv": contest_page.trial_rows(found),
        "settings.csv": contest_page.setting_rows(found),
        "pairs.csv": contest_page.pair_rows(found.pairs),
    }
    with _writing(folder, AGAIN):
        paths = _write(folder, "contest.md", facts, {name: render.to_csv(t) for name, t in tables.items()})
        board.write_hparams(folder / "tensorboard", contest_page.sessions(found), found.columns)
    files = (paths.html, paths.markdown, *(folder / name for name in tables))
    return files, render.to_terminal(contest_page.summary_table(found), " ".join(told))


def _contest(
    found: Contest, title: str, told: Sequence[str], more: Mapping[str, object]
) -> dict[str, object]:
    space = contest_figures.space(found)
    drawn = plots.drawn(contest_figures.plots_of(found) | space)
    own = {"title": title, "headline": told, "found": found, "page": contest_page, "more": more}
    return own | {"plots": drawn, "space": [(drawn[caption], caption) for caption in space]}


@contextmanager
def _writing(place: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RunError(f"{place}: cannot be written ({e.strerror}); {remedy}") from e


def _write(folder: Path, page: str, facts: Mapping[str, object], files: Mapping[str, bytes]) -> Paths:
    """The page in both formats, and files beside it."""
    paths = Paths(html=folder / "report.html", markdown=folder / "report.md", csv=folder / "report.csv")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)
    write_atomic(paths.markdown, render.markdown_page(page, facts).encode())
    write_atomic(paths.html, render.html_page(page, facts).encode())
    return paths
