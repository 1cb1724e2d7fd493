"""Reports as files: what launch, report and sweep ask for. Each writes everything anew and may be called at
any point.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.table import Table as RichTable

from evaluation.seeds import ALPHA
from jobs.costs.measured import learn_from
from jobs.reporting import board, contest_page, figures, plots, policies, render, scalars
from jobs.reporting.contest import Contest
from jobs.reporting.findings import gather
from jobs.reporting.found import Findings
from jobs.reporting.render import Table, listing
from jobs.reporting.sweep_findings import gather_sweep
from jobs.reporting.vitals import alarm_sentences, halt, vital_table
from jobs.sweeps.trials import Sweep, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError
from serl.stages.show import show_of

AGAIN = "make room, or the folder writable, and write the report again"
ELSEWHERE = "choose a writable data root with --data or $SERL_DATA"
TURNS = "round | stage | turn | at | metric | value"


class Paths(NamedTuple):
    """Where a report lies."""

    html: Path
    markdown: Path
    csv: Path


def write_report(run: Run) -> tuple[Paths, RichTable]:
    """The report of a run and its TensorBoard scalars; returns where, and the table for a terminal."""
    with _writing(run.data_root / "calibration", AGAIN):
        cost = learn_from(run)
    found = gather(run)
    rows, turns = scalars.rows(found), listing(scalars.all_turns(found), TURNS)
    told = render.sentences("run_headline.txt", findings=found)
    facts = {
        "title": f"Report of {run.root.name}",
        "headline": told,
        "halted": halt(run),
        "findings": found,
        "rows": rows,
        "by_round": scalars.by_round,
        "plots": plots.drawn(figures.of_run(found)),
        "vitals": vital_table(run),
        "alarms": alarm_sentences(run),
        "show_of": show_of,
        "policy": policies.told,
        "cost": cost,
        "config": yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, width=120),
        "folder": shlex.quote(str(run.root)),
        "questions": found.questions and shlex.join(map(str, (run.data_root, *found.questions))),
        "alpha": ALPHA,
    }
    with _writing(run.root, AGAIN):
        tables = {"report.csv": scalars.csv_table(rows)} | ({"turns.csv": turns} if turns else {})
        paths = _write(run.root, "run.md", facts, tables)
        write_tensorboard(run, found, rows)
    return paths, render.to_terminal(scalars.summary_table(found, rows), " ".join(told))


def write_tensorboard(run: Run, found: Findings, rows: Sequence[scalars.Row]) -> None:
    """`tensorboard/rounds` with the round as step, and where there are turns `tensorboard/turns`."""
    ended = {r.round: max((s.ended for s in r.stages), default=0.0) for r in found.rounds}
    told = [board.Scalar(row.tag, row.round, row.value, ended[row.round]) for row in rows]
    board.write_scalars(run.root / "tensorboard" / "rounds", told)
    turns = [
        board.Scalar(f"{t['stage']}/{t['metric']}", t["at"], t["value"], ended[t["round"]])
        for t in scalars.all_turns(found)
    ]
    if turns:
        board.write_scalars(run.root / "tensorboard" / "turns", turns)


def write_side_by_side(found: Contest, data: Path) -> tuple[Paths, RichTable]:
    """Several models' common report in a folder of its own, where `pairs.csv` holds the tests; returns as
    `write_report` does.
    """
    return _contest(found, data / "reports" / found.name, "Models side by side", ELSEWHERE)


def write_sweep_report(sweep: Sweep, data: Path) -> tuple[tuple[Path, ...], RichTable]:
    """A sweep's report, with TensorBoard's hyperparameter table; returns the files, the page first, and the
    table for a terminal.
    """
    found, folder = gather_sweep(sweep, data), sweep_dir(data, sweep.name)
    paths, summary = _contest(found, folder, f"Sweep {sweep.name}", AGAIN)
    with _writing(folder, AGAIN):
        board.write_hparams(folder / "tensorboard", list(contest_page.sessions(found)), found.columns)
    more = (folder / name for name in contest_page.files(found))
    return (paths.html, paths.markdown, *more), summary


def _contest(found: Contest, folder: Path, title: str, remedy: str) -> tuple[Paths, RichTable]:
    told = render.sentences("contest_headline.txt", found=found, models=any(t.scores for t in found.trials))
    drawn = plots.drawn(figures.of_contest(found))
    facts = contest_page.facts(found) | {"title": title, "headline": told, "plots": drawn}
    with _writing(folder, remedy):
        paths = _write(folder, "contest.md", facts, contest_page.files(found))
    return paths, render.to_terminal(contest_page.summary_table(found), " ".join(told))


@contextmanager
def _writing(place: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RunError(f"{place}: cannot be written ({e.strerror}); {remedy}") from e


def _write(folder: Path, page: str, facts: Mapping[str, object], tables: Mapping[str, Table]) -> Paths:
    """The page in both formats, and tables beside it."""
    paths = Paths(html=folder / "report.html", markdown=folder / "report.md", csv=folder / "report.csv")
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_atomic(folder / name, render.to_csv(table))
    write_atomic(paths.markdown, render.page(page, "md", facts).encode())
    write_atomic(paths.html, render.page(page, "html", facts).encode())
    return paths
