"""The run directory: the only state that jobs share, and what makes a shard done.

A shard exists if and only if its manifest does; how it comes to have one is `attempt`. Nothing here locks,
polls or globs.

Trials of a sweep share the stages that they have in common. A shared stage lies in `<data>/shared/<key>`
instead of the run directory; the key is a digest of all that the stage's result depends on
(`jobs.runs.shared`), and stands in its manifests where a run's digest stands in its own. Any of the runs may
compute it. This module alone knows the difference.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serl.config.old import is_old, modern
from serl.config.read import revive
from serl.config.run import RunConfig, digest
from serl.run.files import rename_if_absent, write_atomic, write_if_absent
from serl.stages.kind import job_name

OVER = "over"  # the count of a shard with nothing in it, of a round after the end of its phase


class RunError(ValueError):
    """The run directory is not what the caller needs; the message names the path and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shard:
    """The unit of work, retry and progress: part `index` of `count` of a stage in a round."""

    round: int
    stage: str
    index: int
    count: int

    @property
    def name(self) -> str:
        return f"shard_{self.index:05d}"

    def __str__(self) -> str:
        return f"round {self.round} {self.stage} {self.index + 1}/{self.count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of a shard: `name` is relative to the stage's folder."""

    name: str
    bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Proof that a shard is complete, and where it came from."""

    shard: Shard
    files: tuple[DataFile, ...]
    inputs: Mapping[str, str]
    config: str
    code: str
    attempt: str
    seconds: float
    created: float
    counts: Mapping[str, float]
    run: str = ""  # that computed it; of a shared stage any of the runs that use it

    @property
    def over(self) -> bool:
        """Whether it is of a round that came after the end of its phase: then it has no files."""
        return OVER in self.counts

    @property
    def digest(self) -> str:
        """Of the content alone: an undisturbed run and a resumed one agree on it."""
        return hashlib.sha256("".join(f.sha256 for f in self.files).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Run:
    """An existing run: where it is and what it is.

    `shared` maps stages, like r000-score, to the keys of their shared results; `sweep` names the sweep that
    the run is a trial of. A run that was ended early has the rounds that it was ended after, in `config`, but
    the digest of what was launched.
    """

    root: Path
    config: RunConfig
    digest: str
    code: str
    shared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sweep: str = ""
    old: bool = False  # launched by a version whose runs had no phases: it can be read, but not gone on with

    @classmethod
    def create(
        cls,
        root: Path,
        config: RunConfig,
        code: str,
        *,
        shared: Mapping[str, str] | None = None,
        sweep: str = "",
    ) -> "Run":
        """Freeze the configuration in a new directory, which appears whole or not at all; refuses one that
        exists.
        """
        draft = root.with_name(f".{root.name}.{os.getpid()}")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            (draft / "events").mkdir(parents=True)
            own = {"shared": dict(shared or {}), "sweep": sweep} if sweep else {}
            write_atomic(
                draft / "run.json",
                json.dumps({"config": config.model_dump(mode="json"), "code": code} | own, indent=1).encode(),
            )
            created = rename_if_absent(draft, root)
        except OSError as e:
            raise RunError(
                f"{root}: cannot be created ({e.strerror}); choose a writable data root with --data or "
                "$SERL_DATA"
            ) from e
        if not created:
            shutil.rmtree(draft)
            raise RunError(
                f"{root}: this run exists; continue it with `python -m jobs.resume {root.name}` or choose "
                "another name=..."
            )
        return cls(root, config, config.digest(), code, dict(shared or {}), sweep)

    @classmethod
    def open(cls, root: Path) -> "Run":
        try:
            frozen = json.loads((root / "run.json").read_bytes())
            if frozen["config"].get("plugins") and str(root / "code") not in sys.path:
                sys.path.append(
                    str(root / "code")
                )  # last: what of ours is there must not go before what runs
            # The digest is of the text that was frozen: a later version of the schema must not change what a
            # run is.
            config = revive(modern(frozen["config"]))
            if ended := ending(root):
                config = config.cut(ended["round"])
            return cls(
                root,
                config,
                digest(frozen["config"]),
                frozen["code"],
                frozen.get("shared", {}),
                frozen.get("sweep", ""),
                is_old(frozen["config"]),
            )
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{root}: not a run (it has no run.json); `python -m jobs.status` lists the runs"
            ) from None
        except (ValueError, KeyError, TypeError) as e:
            remedy = (
                "restore it from a backup, use the code that the run was launched with, or launch it "
                "anew under another name"
            )
            raise RunError(f"{root / 'run.json'}: damaged, or of another version ({e}); {remedy}") from e

    @property
    def data_root(self) -> Path:
        return self.root.parent.parent

    def stage_dir(self, round: int, stage: str) -> Path:
        """Where a stage's shards lie."""
        key = self.shared.get(job_name(round, stage))
        return shared_dir(self.data_root, key) if key else self.root / f"round_{round:03d}" / stage

    def home(self, round: int, stage: str) -> Path:
        """Where is written down who is at work on a stage, and why it failed: all runs that share the stage
        look there.
        """
        key = self.shared.get(job_name(round, stage))
        return shared_dir(self.data_root, key) if key else self.root

    def stamp(self, round: int, stage: str) -> str:
        """What a stage's manifests say of the configuration: the digest of the run's, or the key under which
        the stage is shared.
        """
        return self.shared.get(job_name(round, stage), self.digest)

    def shards(self, round: int, stage: str) -> list[Shard]:
        count = self.config.stage(round, stage).num_shards
        return [Shard(round=round, stage=stage, index=i, count=count) for i in range(count)]

    def manifest(self, shard: Shard) -> Manifest | None:
        """The shard's manifest, or None while it is not done."""
        path = self.stage_dir(shard.round, shard.stage) / f"{shard.name}.json"
        try:
            manifest = _parse_manifest(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as e:
            raise RunError(f"{path}: damaged ({e}); remove it and resume to redo the shard") from e
        stamp = self.stamp(shard.round, shard.stage)
        if manifest.config != stamp or manifest.shard != shard:
            raise RunError(
                f"{path}: written for {manifest.shard} under configuration {manifest.config}, but this run "
                f"wants {shard} under "
                f"{stamp}; run.json was changed after launch: restore it, or launch the new configuration "
                "under another name"
            )
        return manifest

    def done(self, shard: Shard) -> bool:
        return self.manifest(shard) is not None

    def survey(self) -> Callable[[Shard], bool]:
        """`done` for asking of many shards: each stage's folder is listed once, and only manifests that are
        there are opened.
        """
        names: dict[Path, frozenset[str]] = {}

        def done(shard: Shard) -> bool:
            folder = self.stage_dir(shard.round, shard.stage)
            if folder not in names:
                names[folder] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
            return f"{shard.name}.json" in names[folder] and self.done(shard)

        return done

    def complete(self, round: int, stage: str) -> list[Manifest]:
        """All manifests of a stage; refuses while one is missing."""
        found = [self.manifest(s) for s in self.shards(round, stage)]
        if missing := [i for i, m in enumerate(found) if m is None]:
            raise RunError(
                f"{self.stage_dir(round, stage)}: shards {missing} are not done; `python -m jobs.resume "
                f"{self.root.name}` runs them"
            )
        inputs = {json.dumps(m.inputs, sort_keys=True) for m in found}
        if len(inputs) > 1:
            remedy = (
                "restore the input that was changed, or remove the manifests (shard_*.json) that name "
                "the wrong ones and resume"
            )
            raise RunError(
                f"{self.stage_dir(round, stage)}: shards were computed from different inputs: "
                f"{sorted(inputs)}; {remedy}"
            )
        return found

    def path(self, manifest: Manifest, file: DataFile) -> Path:
        return self.stage_dir(manifest.shard.round, manifest.shard.stage) / file.name

    def read(self, manifest: Manifest, file: DataFile | None = None) -> bytes:
        """The content of a shard's file, its first where none is named, checked against its digest."""
        file = file or manifest.files[0]
        path = self.path(manifest, file)
        proof = self.stage_dir(manifest.shard.round, manifest.shard.stage) / f"{manifest.shard.name}.json"
        remedy = f"remove {proof} and resume to redo the shard"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise RunError(f"{path}: missing, but its manifest names it; {remedy}") from None
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise RunError(f"{path}: its {len(data)} bytes do not match the manifest; {remedy}")
        return data


def shared_dir(data_root: Path, key: str) -> Path:
    return data_root / "shared" / key


def ending(root: Path) -> dict | None:
    """Why a run was ended before its last round, and after which: {"round", "reason", "time"}; None where it
    was not.
    """
    try:
        return json.loads((root / "ended.json").read_bytes())
    except FileNotFoundError:
        return None


def end_after(root: Path, round: int, reason: str) -> None:
    """The run is over after `round`; the first reason stays. What is at work on later rounds is not stopped,
    but starts no more.
    """
    write_if_absent(
        root / "ended.json", json.dumps({"round": round, "reason": reason, "time": time.time()}).encode()
    )


def _parse_manifest(data: bytes) -> Manifest:
    m = json.loads(data)
    return Manifest(**(m | {"shard": Shard(**m["shard"]), "files": tuple(DataFile(**f) for f in m["files"])}))
