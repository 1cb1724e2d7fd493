"""Reports as files: what launch, report and sweep ask for. Each writes everything anew and may be called at any point."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from jobs.costs.forecast import learn_from
from jobs.plan.cluster import Tracker
from jobs.reporting import board, policies, render, run_page, scalars, side_by_side, sweep_page
from jobs.reporting.findings import Findings, gather
from jobs.reporting.side_by_side import SideBySide
from jobs.reporting.sweep_findings import gather_sweep
from jobs.reporting.trackers import mirror
from jobs.sweeps.trials import Sweep, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError

AGAIN = "make room, or the folder writable, and write it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a report lies."""

    html: Path
    markdown: Path
    csv: Path


def conclude(run: Run, trackers: Sequence[Tracker]) -> tuple[Paths, Table, list[str]]:
    """At the end of a run, or when somebody asks: the report, its table for a terminal, and lines that say where the
    figures went.
    """
    paths, summary = write_report(run)
    return paths, summary, [f"report: {paths.html}", *mirror(run, trackers)]


def write_report(run: Run) -> tuple[Paths, Table]:
    """The report of a run and its TensorBoard scalars; returns where, and the table for a terminal."""
    try:
        learn_from(run)
    except OSError as e:
        raise RunError(
            f"{run.data_root / 'calibration'}: cannot be written ({e.strerror}); make room, or the folder writable, and "
            "write the report again"
        ) from e
    found = gather(run)
    rows, turns = scalars.rows(found), scalars.turns(found)
    more = {"turns.csv": render.to_csv(turns)} if turns else {}

    def write_boards() -> None:
        write_tensorboard(run, found, rows)

    told = render.to_csv(scalars.csv_table(rows))
    paths = _write(run.root, "run.md", run_page.facts(found, rows), told, more, write_boards, AGAIN)
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
    folder = data / "reports" / found.name
    pairs = render.to_csv(policies.pair_rows(found.pairs))
    rows = render.to_csv(side_by_side.score_rows(found))
    remedy = "choose a writable data root with --data or $SERL_DATA"
    paths = _write(folder, "models.md", side_by_side.facts(found), rows, {"pairs.csv": pairs}, None, remedy)
    headline = " ".join(side_by_side.headlines(found))
    return paths, render.to_terminal(side_by_side.summary_table(found), headline)


def write_sweep_report(sweep: Sweep, data: Path) -> tuple[tuple[Path, ...], Table]:
    """A sweep's report, with TensorBoard's hyperparameter table; returns the files, the page first, and the table for a
    terminal.
    """
    found = gather_sweep(sweep, data)
    folder = sweep_dir(data, sweep.name)
    more = {
        "settings.csv": render.to_csv(sweep_page.setting_rows(found)),
        "pairs.csv": render.to_csv(policies.pair_rows(found.pairs)),
    }

    def write_boards() -> None:
        board.write_hparams(folder / "tensorboard", sweep_page.sessions(found), found.columns)

    rows = render.to_csv(sweep_page.trial_rows(found))
    paths = _write(folder, "sweep.md", sweep_page.facts(found), rows, more, write_boards, AGAIN)
    summary = render.to_terminal(sweep_page.summary_table(found), " ".join(sweep_page.headline(found)))
    return (paths.html, paths.markdown, paths.csv, *(folder / name for name in more)), summary


def _write(
    folder: Path,
    page: str,
    facts: Mapping[str, object],
    rows: bytes,
    more: Mapping[str, bytes],
    then: Callable[[], None] | None,
    remedy: str,
) -> Paths:
    paths = Paths(html=folder / "report.html", markdown=folder / "report.md", csv=folder / "report.csv")
    contents = {
        paths.csv: rows,
        paths.markdown: render.markdown_page(page, facts).encode(),
        paths.html: render.html_page(page, facts).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in (contents | {folder / name: content for name, content in more.items()}).items():
            write_atomic(path, content)
        if then:
            then()
    except OSError as e:
        raise RunError(f"{folder}: the report cannot be written ({e.strerror}); {remedy}") from e
    return paths
