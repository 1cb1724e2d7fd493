"""What of a data root nobody will read again, and how much it takes. Decides only; `jobs.gc` removes.

Never garbage: what a manifest names (data and every round's policy, which the report, a resume and later runs may read), logs, events,
reports, the frozen code, anything of a run that somebody may be at work on, and shared results that a run refers to.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.chain.queue import Journal, Queued
from jobs.plan.chain import job_name, steps
from jobs.runs.find import born, list_runs
from jobs.runs.shared import users
from jobs.runs.state import Activity
from serl.engines.checkpoint import superseded
from serl.run.rundir import Manifest, Run, RunError, Shard

Kind = Literal[
    "checkpoints",
    "parts",
    "stale attempts",
    "temporaries",
    "submission files",
    "caches",
    "drafts",
    "orphaned shared results",
]
_DRAFT = re.compile(r"\..+\.(\d+)")
_SUBMISSION = re.compile(r".*_(submitted|result)\.pkl|(heartbeat|rendezvous|wish|exclude)-.*")
_PROBES = (".doctor-", ".canary-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or folder that may go; `owner` is the run that it lies in, or empty."""

    owner: str
    kind: Kind
    path: Path
    inodes: int
    bytes: int
    changed: float


def measure(owner: str, kind: Kind, path: Path) -> Item:
    """Counting what a link leads to neither here nor when it is removed."""
    inodes = size = 0
    changed = 0.0
    for entry in _walk(path):
        found = entry.lstat()
        inodes, size, changed = inodes + 1, size + found.st_size, max(changed, found.st_mtime)
    return Item(owner=owner, kind=kind, path=path, inodes=inodes, bytes=size, changed=changed)


def _walk(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for parent, folders, files in os.walk(path):
            yield from (Path(parent) / name for name in (*folders, *files))


def of_run(run: Run, *, keep_checkpoints: int | None = None) -> Iterator[Item]:
    """What a run that nobody is at work on may lose and still be resumed, reported, read, and resumed from."""
    name = run.root.name
    for round, stage in steps(run.config):
        if job_name(round, stage) in run.shared:
            continue
        shards = [(shard, run.manifest(shard)) for shard in run.shards(round, stage)]
        for shard, manifest in shards:
            yield from _of_shard(run, shard, manifest, keep_checkpoints)
        yield from (
            measure(name, "temporaries", p) for p in _entries(run.stage_dir(round, stage)) if _temporary(p)
        )
        if all(manifest for _, manifest in shards):
            folder = run.root / "logs" / job_name(round, stage)
            yield from (
                measure(name, "submission files", p)
                for f in _entries(folder)
                for p in _entries(f)
                if _SUBMISSION.fullmatch(p.name)
            )
    yield from (
        measure(name, "temporaries", p)
        for p in _entries(run.root)
        if _temporary(p) or p.name.startswith(".code.")
    )
    if (run.root / "code").is_dir() and not (run.root / "code").is_symlink():
        yield from (measure(name, "caches", p) for p in sorted((run.root / "code").rglob("__pycache__")))


def _of_shard(
    run: Run, shard: Shard, manifest: Manifest | None, keep_checkpoints: int | None
) -> Iterator[Item]:
    """Of a shard that is done, all that its manifest does not name; of another, only what no attempt to come would use."""
    folder = run.stage_dir(shard.round, shard.stage) / shard.name
    named = (
        {
            file.name.partition("/")[2].partition("/")[0]
            for file in manifest.files
            if file.name.startswith(f"{shard.name}/")
        }
        if manifest
        else set()
    )
    for entry in _entries(folder):
        kind = _kind(entry)
        if entry.name not in named if manifest else _abandoned(entry):
            yield measure(run.root.name, kind, entry)
        elif not manifest and kind == "checkpoints" and keep_checkpoints:
            yield from (measure(run.root.name, kind, p) for p in superseded(entry, keep_checkpoints))


def _abandoned(entry: Path) -> bool:
    """What a dead attempt left that no other would take up: half a file, data without a manifest, a policy being built or moved out of the way."""
    return (
        _temporary(entry)
        or entry.suffix in (".jsonl", ".parquet")
        or entry.name.startswith(("policy.", "stale."))
    )


def _kind(entry: Path) -> Kind:
    if entry.name.startswith("checkpoints."):
        return "checkpoints"
    if entry.name.startswith("part_"):
        return "parts"
    return "temporaries" if _temporary(entry) else "stale attempts"


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def of_data(data: Path, queue: Sequence[Queued]) -> tuple[list[Item], list[str]]:
    """What belongs to no run: drafts of launches and probes that died, and shared results without a user; and why something was not looked at."""
    found = [measure("", "drafts", p) for p in _entries(data / "runs") if _dead_draft(p)]
    found += [measure("", "drafts", p) for p in _entries(data) if p.name.startswith(_PROBES)]
    stores = [p for p in _entries(data / "shared") if p.is_dir()]
    if not stores:
        return found, []
    try:
        used = users(data)
    except RunError as e:
        return found, [f"shared results: a damaged run may use any of them ({e})"]
    tokens = {q.token for q in queue}
    for store in stores:
        if store.name not in used and not tokens & {s.token for s in Journal(store).submissions()}:
            found.append(measure("", "orphaned shared results", store))
    return found, []


def still_orphan(data: Path, store: Path) -> bool:
    """Asked again before it goes: a run may have been launched since."""
    return store.name not in users(data)


def _dead_draft(path: Path) -> bool:
    """A folder that a launch on this host began and did not live to name."""
    draft = _DRAFT.fullmatch(path.name)
    return draft is not None and path.is_dir() and born(int(draft[1])) is None


def busy(run: Run, activity: Activity) -> str:
    """Why somebody may be at work on a run, or empty."""
    if activity.launcher:
        return f"process {activity.launcher.pid} on {activity.launcher.host} is running it"
    if activity.queued:
        return f"{len(activity.queued)} of its jobs are in the queue"
    if activity.silence and any(
        not run.done(shard) for round, stage in steps(run.config) for shard in run.shards(round, stage)
    ):
        return f"nobody knows whether its jobs are in the queue: {activity.silence.splitlines()[0]}"
    return ""


def openable(data: Path) -> tuple[list[Run], list[str]]:
    """The runs that can be read, and why the others cannot."""
    runs, faults = [], []
    for root in list_runs(data):
        try:
            runs.append(Run.open(root))
        except RunError as e:
            faults.append(str(e))
    return runs, faults


def settled(items: Iterable[Item], quiet_s: float) -> list[Item]:
    """Those that nobody has changed lately: something that leaves no record, like jobs.shard, may be at work on the others."""
    now = time.time()
    return [item for item in items if now - item.changed > quiet_s]
