"""Weights on the node's own disk: of the tasks of an array, the first on a node reads a policy from the shared file system, the others its copy.

A copy is an optimisation and never the truth: it is named by what it was made of, and where there is no room the original serves.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from serl.run.files import rename_if_absent

IDLE_S = 2 * 3600.0  # a copy that nobody opened for so long may go


def node_local(folder: Path, copies: Path | None) -> Path:
    """The copy of `folder` below `copies`, made if it is not there; `folder` itself where `copies` is None or has no room for it."""
    if copies is None:
        return folder
    copies.mkdir(parents=True, exist_ok=True)
    files = [
        (p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()) if p.is_file()
    ]
    copy = copies / hashlib.sha256(json.dumps([str(folder.resolve()), files]).encode()).hexdigest()[:16]
    _sweep(copies, but=copy)
    if not copy.exists():
        draft = copies / f".{copy.name}.{os.getpid()}"
        try:
            draft.mkdir()
            for name, _, _ in files:
                shutil.copyfile(folder / name, draft / name)
            rename_if_absent(draft, copy)
        except OSError as e:
            print(f"{copies}: no copy of {folder} ({e.strerror}); it is read where it is", file=sys.stderr)
            return folder
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # a neighbour was faster, or there was no room
    os.utime(copy)
    return copy


def _sweep(copies: Path, *, but: Path) -> None:
    """Remove what nobody opened for long, drafts of dead tasks included."""
    now = time.time()
    for entry in copies.iterdir():
        try:
            idle_s = now - entry.stat().st_mtime
        except FileNotFoundError:
            continue  # a neighbour removed it
        if entry != but and idle_s > IDLE_S:
            shutil.rmtree(entry, ignore_errors=True)
