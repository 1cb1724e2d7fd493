"""Bytes that survive a crash: write beside, fsync, then rename or link; never a lock.

On a shared file system the rename and the link are the atomic acts, and fsync is what makes the content
precede the name.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MAX_READERS = 8
NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that refuses a hard link."""
CLAIM = ".first"  # of the folder that says whose a name is where there are no hard links


def fsync_dir(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_temporary(folder: Path, name: str, data: bytes) -> Path:
    temporary = (
        folder / f".{name}.{uuid.uuid4().hex[:12]}.tmp"
    )  # process numbers repeat, between machines and between containers
    with open(temporary, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    return temporary


def write_atomic(path: Path, data: bytes) -> None:
    """`path` holds `data` or what it held before, whenever the power fails."""
    os.replace(_write_temporary(path.parent, path.name, data), path)
    fsync_dir(path.parent)


def write_if_absent(path: Path, data: bytes, scratch: Path | None = None) -> bool:
    """Like `write_atomic`, but the first writer wins; says whether it was us. A crash may leave a temporary
    file in `scratch`.

    Some file systems refuse hard links into another folder, some any: then a folder's name is what only one
    can have.
    """
    for folder in dict.fromkeys((scratch or path.parent, path.parent)):
        try:
            return _link_if_absent(path, data, folder)
        except OSError as e:
            if e.errno not in NO_LINKS:
                raise
    return _claim_if_absent(path, data)


def _link_if_absent(path: Path, data: bytes, folder: Path) -> bool:
    temporary = _write_temporary(folder, path.name, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    fsync_dir(path.parent)
    return True


def _claim_if_absent(path: Path, data: bytes) -> bool:
    """A folder that is not empty cannot be renamed over: the first one holds what `path` will. Whoever finds
    it there finishes what it says, for its writer may be dead; it stays, so that nobody comes second.
    """
    if path.exists():
        return False
    claim = path.parent / f".{path.name}{CLAIM}"
    own = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    own.mkdir()
    write_atomic(own / path.name, data)
    won = rename_if_absent(own, claim)
    if not won:
        shutil.rmtree(own)
    write_atomic(path, (claim / path.name).read_bytes())
    return won


def append_row(path: Path, row: dict) -> None:
    """Add a durable JSON line; a line that a crash tore must not take this one with it."""
    with open(path, "ab+") as f:
        if f.tell() and (f.seek(-1, os.SEEK_END), f.read())[1] != b"\n":
            f.write(b"\n")
        f.write(json.dumps(row).encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())


def read_rows(path: Path) -> Iterator[dict]:
    """The JSON lines that `append_row` finished; none where there is no file."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # torn by a crash in mid-write
            continue


def fsync_tree(folder: Path) -> None:
    """Make every file below `folder` durable, written by whatever library."""
    for parent, _, names in os.walk(folder):
        for name in names:
            fd = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync_dir(Path(parent))


def rename_if_absent(source: Path, target: Path) -> bool:
    """Give a finished folder its name; False where another attempt's folder has it already."""
    try:
        os.rename(source, target)
    except OSError:
        if target.is_dir() and any(target.iterdir()):
            return False
        raise
    fsync_dir(target.parent)
    return True


def sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_of(paths: Sequence[Path]) -> list[str]:
    """The hashes of several files, which are read at the same time: as many as there are cores for it."""
    with ThreadPoolExecutor(max(1, min(len(paths), MAX_READERS, len(os.sched_getaffinity(0))))) as pool:
        return list(pool.map(sha256, paths))
