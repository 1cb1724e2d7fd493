"""One attempt at a shard: it commits parts, and publishes.

Data is written under a name of the attempt, made durable, and only then named by the shard's manifest, which
is linked into place: of live attempts exactly one wins, and what the others wrote is removed.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from serl.run.files import fsync_tree, rename_if_absent, sha256_of, write_atomic, write_if_absent
from serl.run.rundir import DataFile, Manifest, Run, Shard

ORIGIN = "origin.json"  # inside a published folder: what it was made from
NOTHING: Mapping[str, tuple[int, str]] = MappingProxyType({})


class Overtaken(Exception):
    """Another attempt has published the shard: there is nothing left to do for it."""


class Helped(Exception):
    """This process has done its share of a shard's parts; the first of its job publishes them all."""


def _contents(folder: Path, sealed: Mapping[str, tuple[int, str]] = NOTHING) -> dict[str, list]:
    """Size and digest of every file of a folder, by relative name; without the note that repeats them.

    Of `sealed` files, whose writers hashed them, only the size is looked at.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ORIGIN)
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in paths}
    unread = [name for name, size in sizes.items() if sealed.get(name, (None,))[0] != size]
    digests = {name: digest for name, (_, digest) in sealed.items()}
    digests |= zip(unread, sha256_of([folder / name for name in unread]))
    return {name: [size, digests[name]] for name, size in sizes.items()}


class Attempt:
    """One try at a shard: commits parts, then publishes.

    Parts are for the next attempt of the same shard from the same inputs: work done is not done again. Their
    names carry a digest of the inputs, so that parts of other inputs are never taken for ours.
    """

    def __init__(self, run: Run, shard: Shard, *, id: str, inputs: Mapping[str, str]):
        self.run, self.shard, self.id, self.inputs = run, shard, id, dict(inputs)
        self.stage_dir = run.stage_dir(shard.round, shard.stage)
        self.folder = self.stage_dir / shard.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stamp = run.stamp(shard.round, shard.stage)
        self.key = hashlib.sha256(json.dumps([self.inputs, self.stamp], sort_keys=True).encode()).hexdigest()[
            :8
        ]
        self._start = time.time()

    def _part(self, index: int) -> Path:
        return self.folder / f"part_{index:05d}.{self.key}"

    def part(self, index: int) -> bytes | None:
        try:
            return self._part(index).read_bytes()
        except FileNotFoundError:
            return None

    def num_parts(self) -> int:
        """How many are committed, by whomever: one listing."""
        return sum(name.startswith("part_") and name.endswith(self.key) for name in os.listdir(self.folder))

    def overtaken(self) -> bool:
        """Whether another attempt has published the shard: one look at its manifest's name."""
        return (self.stage_dir / f"{self.shard.name}.json").exists()

    def commit(self, index: int, data: bytes) -> bytes:
        """Keep a part; returns what is kept: ours, or that of a rival attempt that was faster."""
        return data if write_if_absent(self._part(index), data) else self._part(index).read_bytes()

    def publish_bytes(
        self,
        suffix: str,
        data: bytes,
        rows: int,
        counts: Mapping[str, float] | None = None,
        *,
        beside: Mapping[str, bytes] | None = None,
    ) -> Manifest:
        """Publish a shard that is one file; `beside` it, by suffix, what only people read."""
        more = [self._write(end, content, content.count(b"\n")) for end, content in (beside or {}).items()]
        return self.publish([self._write(suffix, data, rows), *more], counts or {})

    def _write(self, suffix: str, data: bytes, rows: int) -> DataFile:
        """A file of this attempt, durable, for a manifest to name."""
        name = f"{self.shard.name}/{self.id}{suffix}"
        write_atomic(self.stage_dir / name, data)
        return DataFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=rows)

    def publish_folder(
        self,
        built: Path,
        name: str,
        counts: Mapping[str, float],
        *,
        sealed: Mapping[str, tuple[int, str]] = NOTHING,
        beside: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Manifest:
        """Publish a shard that is a folder, `built`, under a fixed name that people can find; `beside` it
        files, by suffix.

        `sealed` says of files that were hashed while they were written their size and digest: they are not
        read again. A folder that stands there without a manifest is adopted if it is whole and of our inputs:
        a rival put it there, or we did and were killed. Any other is moved out of the way.
        """
        if self.overtaken():
            return self._settle()
        folder = self.stage_dir / name
        files = _contents(built, sealed)
        write_atomic(
            built / ORIGIN,
            json.dumps({"key": self.key, "inputs": self.inputs, "files": files}, indent=1).encode(),
        )
        fsync_tree(built)
        while not rename_if_absent(built, folder):
            with suppress(FileNotFoundError):  # a rival moved it out of the way, too
                identity = folder.stat().st_ino
                if standing := self._adoptable(folder):
                    files = standing
                    break
                if self.overtaken():
                    return self._settle()
                if folder.stat().st_ino == identity:  # else a rival has put its own there while we read
                    os.rename(folder, self.folder / f"stale.{identity}")
        named = [
            DataFile(name=f"{name}/{n}", bytes=size, sha256=digest, rows=0)
            for n, (size, digest) in files.items()
        ]
        more = [self._write(end, content, 0) for end, content in beside.items()]
        return self.publish([*named, *more], counts)

    def _adoptable(self, folder: Path) -> dict[str, list] | None:
        """The files of a standing folder that is whole and of our inputs."""
        try:
            origin = json.loads((folder / ORIGIN).read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return (
            origin["files"]
            if origin.get("key") == self.key and origin["files"] == _contents(folder)
            else None
        )

    def publish(self, files: Sequence[DataFile], counts: Mapping[str, float]) -> Manifest:
        """Name durable files in the manifest, unless another attempt has."""
        now = time.time()
        manifest = Manifest(
            shard=self.shard, files=tuple(files), inputs=self.inputs, config=self.stamp,
            code=self.run.code, attempt=self.id, seconds=round(now - self._start, 3),
            created=round(now, 3), counts=dict(counts), run=self.run.root.name,
        )  # fmt: skip
        text = json.dumps(dataclasses.asdict(manifest), indent=1)
        write_if_absent(self.stage_dir / f"{self.shard.name}.json", text.encode(), scratch=self.folder)
        return self._settle()

    def _settle(self) -> Manifest:
        """The shard's manifest, whoever won; what it does not name is removed."""
        winner = self.run.manifest(self.shard)
        assert winner is not None, f"{self.shard}: a manifest that was written cannot be read"
        self._clean(winner)
        return winner

    def _clean(self, winner: Manifest) -> None:
        kept = {f.name.partition("/")[2] for f in winner.files if f.name.startswith(self.shard.name + "/")}
        try:
            entries = list(os.scandir(self.folder))
        except FileNotFoundError:  # the winner's own cleaning took it
            return
        for entry in entries:
            if entry.name in kept:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)  # a rival attempt may be removing it too
            else:
                Path(entry.path).unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(self.folder, ignore_errors=True)
