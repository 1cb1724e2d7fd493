"""Runs by name, under a data root."""

import difflib
import os
from pathlib import Path

from jobs.runs.code import ROOT
from serl.run.rundir import Run, RunError


def find_run(name: str, data: Path) -> Run:
    """The run of that name under the data root, or at that path."""
    by_path = Path(name)
    root = by_path if (by_path / "run.json").is_file() else data / "runs" / name
    if (root / "run.json").is_file():
        return Run.open(as_given(root))
    known = [r.name for r in list_runs(data)]
    near = difflib.get_close_matches(Path(name).name, known, n=3) or known[:5]
    hint = "there are no runs there; set --data or $SERL_DATA to the data root you launched with"
    raise RunError(f"{root}: no such run; " + (f"runs there: {', '.join(near)}" if near else hint))


def as_given(path: Path) -> Path:
    """The path from the root on, its links as they are: a node may resolve them differently."""
    shell = Path(os.environ.get("PWD", "."))
    inside = shell.is_absolute() and shell.is_dir() and shell.samefile(".")
    return Path(os.path.normpath(shell / path)) if inside and ".." not in path.parts else path.absolute()


def list_runs(data: Path) -> list[Path]:
    return sorted(p.parent for p in data.glob("runs/[!.]*/run.json") if p.is_file())


def check_goes_on(run: Run) -> None:
    """Refuses to go on with a run of an earlier version: other code would make later rounds differ."""
    if run.old:
        resume = f"slurm/python -m jobs.resume {run.root.name} --data {run.data_root}"
        local = not (run.root / "launched.json").exists()  # its copy of the code has no cluster file
        here = f" --cluster {ROOT / 'configs' / 'clusters' / 'local.yaml'}" if local else ""
        raise RunError(
            f"{run.root}: launched by an earlier version, so its own copy of the code must finish it: "
            f"`cd {run.root / 'code'} && {resume}{here}`"
        )
