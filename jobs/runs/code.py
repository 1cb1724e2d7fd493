"""The code of a run: ours and a user's own packages, copied at launch so that no edit changes a run."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.run.files import fsync_tree, rename_if_absent, sha256

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jobs", "serl", "evaluation", "slurm")  # what a run takes along: jobs start in its copy


def code_version() -> str:
    """The commit that is checked out, marked where the working tree differs; "unversioned" outside git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", *PACKAGES) else commit
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"


def _git(*words: str) -> str:
    command = ("git", *words)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def code_files(root: Path) -> list[Path]:
    """What `freeze_code` copies of our own code, or has copied."""
    files = (p for package in PACKAGES for p in (root / package).rglob("*"))
    return sorted(p for p in files if p.is_file() and "__pycache__" not in p.parts)


def frozen_digest() -> str:
    """Of all that `freeze_code` copies: runs of one sweep share one copy of the same code."""
    told = "".join(f"{p.relative_to(ROOT)} {sha256(p)}\n" for p in code_files(ROOT))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def freeze_code(target: Path, users: Sequence[Path] = ()) -> None:
    """Copy the code that jobs import, and packages of the user's own, unless that was done."""
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, temporary / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in users:
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, temporary / path.name)
    fsync_tree(temporary)
    if not rename_if_absent(temporary, target):
        shutil.rmtree(temporary)


def packages_of(config: RunConfig) -> list[Path]:
    """A user's own packages (kinds of stages, reward functions): those that are not installed here."""
    modules = [*config.plugins, *(m for s in config.stages for m in _modules(s.section))]
    found = [_place(name.partition(".")[0]) for name in dict.fromkeys(modules)]
    return list(dict.fromkeys(path for path in found if path and Path(sys.prefix) not in path.parents))


def _modules(section: object) -> list[str]:
    """Modules that a section's reward functions are imported from."""
    if isinstance(section, tuple):
        return [m for part in section for m in _modules(part)]
    if not isinstance(section, Section):
        return []
    values = {name: getattr(section, name) for name in type(section).model_fields}
    own = values.get("kind") == "python" and values.get("text") is None and isinstance(values["path"], str)
    return [values["path"].rpartition(":")[0]] if own else [m for v in values.values() for m in _modules(v)]


def _place(name: str) -> Path | None:
    """Where a top-level module is imported from; None where it is not found, which other checks say."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]) if folders else Path(spec.origin) if spec.origin else None
