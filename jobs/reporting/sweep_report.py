"""The report of a sweep: HTML, Markdown, CSV and TensorBoard's hyperparameter table, in `<data>/sweeps/<name>/`, at any point of the sweep."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from jobs.reporting import render, sweep_page
from jobs.reporting.hparams import write_hparams
from jobs.reporting.side_by_side_page import to_csv
from jobs.reporting.sweep_findings import SweepFindings, gather_sweep, replicate_of
from jobs.sweeps.trials import Sweep, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import RunError


def write_sweep_report(sweep: Sweep, data: Path) -> tuple[tuple[Path, ...], Table]:
    """Write everything anew; returns the files, the page first, and the table for a terminal."""
    found = gather_sweep(sweep, data)
    folder = sweep_dir(data, sweep.name)
    title, blocks = f"Sweep {sweep.name}", sweep_page.page(found)
    contents = {
        "report.html": render.to_html(title, blocks).encode(),
        "report.md": render.to_markdown(title, blocks).encode(),
        "report.csv": to_csv(trial_rows(found)),
        "settings.csv": to_csv(setting_rows(found)),
        "pairs.csv": to_csv(pair_rows(found)),
    }
    try:
        for name, content in contents.items():
            write_atomic(folder / name, content)
        write_hparams(folder / "tensorboard", found)
    except OSError as e:
        raise RunError(
            f"{folder}: the report cannot be written ({e.strerror}); make room, or the folder writable, and write it again"
        ) from e
    summary = render.to_terminal(sweep_page.summary_table(found), " ".join(sweep_page.headline(found)))
    return tuple(folder / name for name in contents), summary


def trial_rows(found: SweepFindings) -> list[Sequence[object]]:
    """A row for each trial, round and benchmark, and one without them for a trial that has no score."""
    key = found.sweep.config.replicate
    header = (
        "trial",
        "run",
        "setting",
        "replicate",
        "state",
        "round",
        "chosen",
        "benchmark",
        "role",
        "score",
        "used_s",
        "lost_s",
        "gpu_hours",
        "reason",
    )
    rows: list[Sequence[object]] = [header]
    for s in found.settings:
        for t in s.trials:
            start = (t.trial.id, t.trial.run, s.label, replicate_of(t.trial, key), t.word)
            end = (t.cost.used_s, t.cost.all_lost_s, t.cost.gpu_hours, t.reason)
            scores = [
                (r, int(r == t.chosen), name, _role(found, name), value)
                for r, means in sorted(t.means.items())
                for name, value in means.items()
            ]
            rows += [(*start, *score, *end) for score in scores or [("", "", "", "", "")]]
    return rows


def setting_rows(found: SweepFindings) -> list[Sequence[object]]:
    """A row for each setting and benchmark: over seeds and over problems."""
    rows: list[Sequence[object]] = [
        (
            "rank",
            "setting",
            "benchmark",
            "role",
            "seeds",
            "trials",
            "mean",
            "stderr",
            "low",
            "high",
            "problems_low",
            "problems_high",
            "base",
            "overrides",
        )
    ]
    for rank, s in enumerate(found.settings, 1):
        for name in (*found.validation, *found.benchmarks):
            if (v := s.seeds(name)).n:
                within, base = s.problems(name), s.seeds(name, at=0)
                rows.append(
                    (
                        rank,
                        s.label,
                        name,
                        _role(found, name),
                        v.n,
                        len(s.trials),
                        v.value,
                        v.stderr,
                        v.low,
                        v.high,
                        within.low,
                        within.high,
                        base.value,
                        json.dumps(s.overrides, sort_keys=True),
                    )
                )
    return rows


def pair_rows(found: SweepFindings) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [
        (
            "benchmark",
            "first",
            "second",
            "difference",
            "low",
            "high",
            "seeds",
            "problems",
            "p",
            "p_holm",
            "verdict",
        )
    ]
    rows += [
        (p.benchmark, p.first, p.second, d.difference, d.low, d.high, d.num_seeds, d.num_problems, d.p, p.p_holm, p.word)
        for p in found.pairs for d in (p.found,)
    ]  # fmt: skip
    return rows


def _role(found: SweepFindings, benchmark: str) -> str:
    return "validation" if benchmark in found.validation else "headline"
