"""Training state on disk: `step_000125/`, a folder that exists only whole, and a manifest that can prove it.

A checkpoint is written under a hidden name, hashed and made durable by the ranks that write it, given its
manifest, then its real name by rename. A reader trusts only what the manifest proves, and falls back to an
older checkpoint, saying why. Knows files, not tensors.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serl.run.files import fsync_dir, rename_if_absent, sha256_of, write_atomic

MANIFEST = "manifest.json"
_NAME = re.compile(r"step_(\d{6,})")
_PARTIAL = re.compile(r"\.step_(\d{6,})\..+\.(?:partial|old)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint holds: its step, who wrote it, the caller's own `extra` values, and size and hash of
    every file.
    """

    step: int
    world_size: int
    zero: int
    dtype: str
    extra: dict[str, int | float | str]
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The newest checkpoint that can be trusted, if any, and why newer ones cannot."""

    folder: Path | None
    manifest: Manifest | None
    rejected: tuple[str, ...]


def step_folder(root: Path, step: int) -> Path:
    return root / f"step_{step:06d}"


def partial_folder(root: Path, step: int, attempt: str) -> Path:
    """Where one attempt writes before its checkpoint has a name."""
    return root / f".step_{step:06d}.{attempt}.partial"


def publish(partial: Path, manifest: Manifest) -> Path:
    """Give a finished checkpoint its manifest and its name; a valid one that already has the name stays, a
    broken one is replaced.
    """
    final = step_folder(partial.parent, manifest.step)
    write_atomic(partial / MANIFEST, to_json(manifest))
    if not rename_if_absent(partial, final):
        if not faults(final):
            shutil.rmtree(partial)
            return final
        final.rename(partial.with_suffix(".old"))
        rename_if_absent(partial, final)
        shutil.rmtree(partial.with_suffix(".old"))
    fsync_dir(final.parent)
    return final


def faults(folder: Path, hashes: bool = True) -> str:
    """Why the checkpoint cannot be trusted; empty if it can. Without `hashes` only names and sizes are
    compared.
    """
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"{folder.name}: manifest missing or unreadable ({e.__class__.__name__})"
    for name, (size, _) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{folder.name}: {name} is missing"
        if path.stat().st_size != size:
            return f"{folder.name}: {name} has {path.stat().st_size} bytes, its manifest says {size}"
    return changed(folder, manifest, tuple(manifest.files)) if hashes else ""


def changed(folder: Path, manifest: Manifest, names: Sequence[str]) -> str:
    """Which of these files, if any, is not what was written."""
    for name, digest in zip(names, sha256_of([folder / name for name in names])):
        if digest != manifest.files[name][1]:
            return f"{folder.name}: {name} does not match its hash"
    return ""


def to_json(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), sort_keys=True).encode()


def read_manifest(folder: Path) -> Manifest:
    content = json.loads((folder / MANIFEST).read_text())
    content["files"] = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
    return Manifest(**content)


def newest_valid(root: Path) -> Found:
    """The newest checkpoint whose every byte is as it was written."""
    rejected = []
    for folder in newest_first(root):
        if not (fault := faults(folder)):
            return Found(folder=folder, manifest=read_manifest(folder), rejected=tuple(rejected))
        rejected.append(fault)
    return Found(folder=None, manifest=None, rejected=tuple(rejected))


def superseded(root: Path, keep: int) -> list[Path]:
    """All but the newest `keep` complete checkpoints, and what dead attempts left behind them; never the last
    complete one.
    """
    assert keep >= 1, "the last valid checkpoint is never deleted"
    folders = newest_first(root)
    complete = [f for f in folders if not faults(f, hashes=False)]
    if not complete:
        return []
    doomed = complete[keep:] + [f for f in folders if f not in complete and _step(f) < _step(complete[0])]
    return doomed + [
        p for p in root.iterdir() if (m := _PARTIAL.fullmatch(p.name)) and int(m[1]) < _step(complete[0])
    ]


def prune(root: Path, keep: int) -> list[Path]:
    """Delete what is superseded; returns what that was."""
    doomed = superseded(root, keep)
    for folder in doomed:
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return doomed


def newest_first(root: Path) -> list[Path]:
    """The checkpoints by falling step, whether they can be trusted or not."""
    folders = [p for p in root.iterdir() if _NAME.fullmatch(p.name)] if root.is_dir() else []
    return sorted(folders, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(_NAME.fullmatch(folder.name)[1])
