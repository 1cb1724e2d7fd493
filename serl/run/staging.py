"""Weights on the node's own disk: of the tasks on a node, the first reads a policy from the shared file
system, the others wait for its copy.

A copy is an optimisation and never the truth: it is named by what it was made of, and where there is no room
the original serves. Who copies holds a claim, a folder that shows that it lives; one that shows nothing for a
while is taken over, so that a task which was killed holds nobody up. There is no lock: if two copy after all,
each does so under a name of its own, and one of them is first.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from serl.run.files import rename_if_absent

IDLE_S = 2 * 3600.0  # a copy that nobody opened for so long may go
SILENT_S = 60.0  # a claim that showed nothing for so long is of a dead task
LOOK_S = 0.2
CHUNK_BYTES = 2**26  # copied between two signs of life


def node_local(folder: Path, copies: Path | None) -> Path:
    """The copy of `folder` below `copies`, made if it is not there; `folder` itself where `copies` is None or
    has no room for it.
    """
    if copies is None:
        return folder
    copies.mkdir(parents=True, exist_ok=True)
    files = [
        (p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()) if p.is_file()
    ]
    copy = copies / hashlib.sha256(json.dumps([str(folder.resolve()), files]).encode()).hexdigest()[:16]
    _sweep(copies, but=copy)
    claim, refused = copies / f".{copy.name}.claim", copies / f".{copy.name}.refused"
    while not copy.exists():
        if refused.exists():
            return folder
        if _claimed(claim):
            _make(folder, [name for name, _, _ in files], copy, claim, refused)
        else:
            time.sleep(LOOK_S)
    os.utime(copy)
    return copy


def _claimed(claim: Path) -> bool:
    """Whether it is ours to copy; a claim whose holder is silent is removed, and whoever comes first has the
    next.
    """
    try:
        claim.mkdir()
        return True
    except FileExistsError:
        pass
    try:
        if time.time() - claim.stat().st_mtime > SILENT_S:
            dead = claim.with_name(f"{claim.name}.{uuid.uuid4().hex[:12]}")
            claim.rename(dead)
            dead.rmdir()
    except FileNotFoundError:  # it has just been given back, or somebody else took it over
        pass
    return False


def _make(folder: Path, names: Sequence[str], copy: Path, claim: Path, refused: Path) -> None:
    """Copy, under a name of our own until all is there, and give the claim back; where there is no room, tell
    the others.
    """
    draft = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:12]}")
    try:
        if not copy.exists():  # whoever had the claim before us may have finished
            draft.mkdir()
            for name in names:
                _copy(folder / name, draft / name, claim)
            rename_if_absent(draft, copy)
    except OSError as e:
        print(f"{copy.parent}: no copy of {folder} ({e.strerror}); it is read where it is", file=sys.stderr)
        refused.touch()
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # there was no room, or we were taken for dead
        shutil.rmtree(claim, ignore_errors=True)


def _copy(source: Path, target: Path, claim: Path) -> None:
    with open(source, "rb") as read, open(target, "wb") as write:
        while chunk := read.read(CHUNK_BYTES):
            write.write(chunk)
            _show_life(claim)


def _show_life(claim: Path) -> None:
    try:
        os.utime(claim)
    except FileNotFoundError:  # taken over: what we have may still be there first
        pass


def _sweep(copies: Path, *, but: Path) -> None:
    """Remove what nobody opened for long, drafts and claims of dead tasks included."""
    now = time.time()
    for entry in copies.iterdir():
        try:
            idle_s = now - entry.stat().st_mtime
        except FileNotFoundError:
            continue  # a neighbour removed it
        if entry == but or idle_s <= IDLE_S:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
