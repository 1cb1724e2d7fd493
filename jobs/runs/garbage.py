"""What of a data root nobody will read again, how much it takes, and its removal.

Never garbage: what a manifest names (data and every round's policy, which the report, a resume and later runs
may read; but for policies that were published along the way, have been looked at and are not the best),
logs, events, reports, the frozen code, anything of a run that somebody may be at work on, and shared results
that a run refers to.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.runs.queue import Journal
from jobs.runs.shared import users
from jobs.runs.state import State, queue_or_silence, state_of
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.stages.kind import Stage
from serl.stages.work import POLICY_FOLDER

ORPHANS = "orphaned shared results"
Kind = Literal[
    "checkpoints", "parts", "stale attempts", "temporaries", "submission files", "orphaned shared results",
    "policies along the way",
]  # fmt: skip
_SUBMISSION = re.compile(r".*_(submitted|result)\.pkl|(heartbeat|rendezvous|start|wish|exclude)-.*")


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
    entries = [path]
    if path.is_dir() and not path.is_symlink():
        entries += [Path(at) / name for at, folders, files in os.walk(path) for name in (*folders, *files)]
    found = [entry.lstat() for entry in entries]
    size, changed = sum(f.st_size for f in found), max(f.st_mtime for f in found)
    return Item(owner=owner, kind=kind, path=path, inodes=len(found), bytes=size, changed=changed)


# ------------------------------------------------------------------------------------------------ of a run
def of_run(run: Run, best: tuple[int, int] | None = None) -> Iterator[Item]:
    """What a run that nobody is at work on may lose and still be resumed, reported and read; `best` is the
    round and milestone of its best policy.
    """
    for stage in run.config.stages:
        if stage.job not in run.shared:
            yield from _of_stage(run, stage)
        if stage.maker != stage.job and (stage.round, stage.milestone) != best:
            yield from _looked_at(run, stage)
    for path in _entries(run.root):
        if _temporary(path) or path.name.startswith(".code."):
            yield measure(run.root.name, "temporaries", path)


def _of_stage(run: Run, stage: Stage) -> Iterator[Item]:
    name = run.root.name
    shards = [(shard, run.manifest(shard)) for shard in run.shards(stage.round, stage.name)]
    for shard, manifest in shards:
        yield from _of_shard(run, shard, manifest)
    for path in _entries(run.stage_dir(stage.round, stage.name)):
        if _temporary(path):
            yield measure(name, "temporaries", path)
    if all(manifest for _, manifest in shards):
        files = (p for folder in _entries(run.root / "logs" / stage.job) for p in _entries(folder))
        yield from (measure(name, "submission files", p) for p in files if _SUBMISSION.fullmatch(p.name))


def _looked_at(run: Run, published: Stage) -> Iterator[Item]:
    """The policy of a milestone, once all that reads it is done."""
    folder = run.stage_dir(published.round, published.name) / POLICY_FOLDER
    readers = (s for s in run.config.at(published.round) if published in s.kind.reads(s, run.config))
    if folder.is_dir() and all(run.done(shard) for s in readers for shard in run.shards(s.round, s.name)):
        yield measure(run.root.name, "policies along the way", folder)


def _of_shard(run: Run, shard: Shard, manifest: Manifest | None) -> Iterator[Item]:
    """Of a shard that is done, what its manifest does not name; else what no attempt will use."""
    files = [file.name.split("/") for file in manifest.files] if manifest else []
    named = {name[1] for name in files if name[0] == shard.name and len(name) > 1}
    for entry in _entries(run.stage_dir(shard.round, shard.stage) / shard.name):
        if entry.name not in named if manifest else _abandoned(entry):
            yield measure(run.root.name, _kind(entry), entry)


def _abandoned(entry: Path) -> bool:
    """What no other attempt takes up: half a file, data without a manifest, a policy being built."""
    data = entry.suffix in (".jsonl", ".parquet")
    return _temporary(entry) or data or entry.name.startswith(("policy.", "stale."))


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


# ------------------------------------------------------------------------------------------------ of no run
def of_data(data: Path) -> tuple[list[Item], list[str]]:
    """Shared results without a user; and why they were spared, if they were."""
    stores = [p for p in _entries(data / "shared") if p.is_dir()]
    try:
        used = users(data) if stores else {}
    except RunError as e:
        return [], [f"shared results: a damaged run may use any of them ({e})"]
    tokens = {q.token for q in queue_or_silence()[0]} if stores else set()
    orphans = (p for p in stores if p.name not in used)
    idle = (p for p in orphans if not tokens & {s.token for s in Journal(p).submissions()})
    return [measure("", ORPHANS, p) for p in idle], []


def busy(state: State) -> str:
    """Why somebody may be at work on a run, or empty."""
    at_work = state.activity
    if at_work.launcher:
        return f"process {at_work.launcher.pid} on {at_work.launcher.host} is running it"
    if at_work.queued:
        return f"{len(at_work.queued)} of its jobs are in the queue"
    if at_work.silence and not state.done:
        return f"nobody knows whether its jobs are in the queue: {at_work.silence.splitlines()[0]}"
    return ""


# ------------------------------------------------------------------------------------------------ removal
def remove(found: Sequence[Item], runs: Mapping[str, Run], data: Path) -> tuple[list[Item], list[str]]:
    """Remove, run by run, looking again at who is at work; returns what went, and why the rest did not."""
    gone: list[Item] = []
    left: list[str] = []
    for owner in dict.fromkeys(item.owner for item in found):
        items = [item for item in found if item.owner == owner]
        if owner and (why := busy(state_of(runs[owner]))):
            left.append(f"{owner}: {why}")
            continue
        faults: Counter[str] = Counter()
        for item in items:
            try:
                _remove(item, data)
                gone.append(item)
            except OSError as e:
                faults[e.strerror or str(e)] += 1
            except RunError as e:
                faults[str(e)] += 1
        whose = owner or "what belongs to no run"
        left += [f"{whose}: {n} of {len(items)} could not be removed: {e}" for e, n in faults.items()]
    return gone, left


def _remove(item: Item, data: Path) -> None:
    """A shared result first goes out of the way whole: a run launched meanwhile finds all or none."""
    path = item.path
    if item.kind == ORPHANS:
        if path.name in users(data):  # asked again: a run may have been launched since
            raise RunError(f"a run has begun to use {path.name}")
        path = path.rename(path.with_name(f".gone-{path.name}"))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
