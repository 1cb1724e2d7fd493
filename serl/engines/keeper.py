"""Training state to disk and back, for all ranks together: checkpoints, and what one training hands to the
next.

Every rank writes what it holds. A checkpoint that is written behind is a copy in host memory first; then a
thread of each rank writes its part while training goes on, and rank 0 gives the whole its name when all have
said on the board that theirs is done. Until then there is the checkpoint before. One is written at a time:
whoever wants the next, or to leave, waits at `fence`.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from torch import nn

from serl.engines import checkpoint, pieces
from serl.engines.pieces import Piece
from serl.engines.zero import Plan
from serl.run.files import write_atomic

LOOK_S = 0.05
Extra = dict[str, int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where training goes on, the caller's values saved there, and why newer checkpoints were passed over."""

    step: int
    extra: Extra
    rejected: tuple[str, ...]


class Keeper:
    """The state of `engine`, which trains `lm`."""

    def __init__(self, engine, lm: nn.Module, plan: Plan):
        self._engine, self._lm, self._plan, self._ranks = engine, lm, plan, plan.ranks
        self._beside: dict[str, Keeper] = {}
        self._behind = Behind()

    def hold(self, name: str, other: "Keeper") -> None:
        """From now on keep the state of another engine, too, under a name of its own: there is one checkpoint
        of both, or none.
        """
        self._beside[name] = other

    def save(self, root: Path, step: int, extra: Extra, *, behind: bool) -> Path:
        """Write a checkpoint and delete the ones beyond `keep_checkpoints`."""
        self.fence()
        partial = self._ranks.from_first(checkpoint.partial_folder(root, step, uuid.uuid4().hex[:12]))
        partial.mkdir(parents=True, exist_ok=True)
        held = list(self._held(own=True))
        if behind:
            held = pieces.snapshot(held)
        self._behind.start(lambda: self._write(partial, held, self._manifest(step, extra)))
        if not behind:
            self.fence()
        return checkpoint.step_folder(root, step)

    def fence(self) -> None:
        """Wait until the checkpoint that is being written is there, on all ranks; raises what went wrong with
        it on this one.
        """
        if self._behind.settle():
            self._ranks.barrier()

    def _write(self, partial: Path, held: Sequence[Piece], manifest: checkpoint.Manifest) -> None:
        files = self._sealed(partial, held)
        if not self._ranks.first:
            self._ranks.board.post(f"{partial.name}/{self._ranks.rank}", json.dumps(files))
            return
        for rank in range(1, self._ranks.size):
            while (said := self._ranks.board.read(f"{partial.name}/{rank}")) is None:
                time.sleep(LOOK_S)
            files |= json.loads(said)
        checkpoint.publish(partial, replace(manifest, files=files))
        checkpoint.prune(partial.parent, self._plan.settings.keep_checkpoints)

    def _sealed(self, folder: Path, held: Sequence[Piece]) -> dict[str, tuple[int, str]]:
        written = pieces.write(folder, f"rank_{self._ranks.rank:05d}", held)
        return {path.name: sealed for path, sealed in written.items()}

    def _manifest(self, step: int, extra: Extra) -> checkpoint.Manifest:
        return checkpoint.Manifest(
            step=step,
            world_size=self._ranks.size,
            zero=self._plan.stage,
            dtype=str(self._plan.dtype).removeprefix("torch."),
            extra=extra,
            files={},
        )

    def load(self, root: Path) -> Resumed | None:
        """Go on from the newest checkpoint that is as it was written; None if there is none."""
        self.fence()
        rejected: list[str] = []
        for folder in self._ranks.from_first(checkpoint.newest_first(root) if self._ranks.first else None):
            fault, manifest = self._look(folder)
            if fault:
                rejected.append(fault)
                continue
            self._fill(folder, manifest, list(self._held(own=False)))
            return Resumed(step=manifest.step, extra=manifest.extra, rejected=tuple(rejected))
        return None

    def _look(self, folder: Path) -> tuple[str, checkpoint.Manifest | None]:
        """What is wrong with a checkpoint, and what it holds; each rank reads its share of the files."""
        fault, manifest = "", None
        if self._ranks.first and not (fault := checkpoint.faults(folder, hashes=False)):
            manifest = checkpoint.read_manifest(folder)
        fault, manifest = self._ranks.from_first((fault, manifest))
        if manifest is None:
            return fault, None
        mine = sorted(manifest.files)[self._ranks.rank :: self._ranks.size]
        faults = self._ranks.gather(checkpoint.changed(folder, manifest, mine))
        return next(filter(None, faults), ""), manifest

    def _fill(self, folder: Path, manifest: checkpoint.Manifest, held: Sequence[Piece]) -> None:
        pieces.fill(held, [folder / name for name in manifest.files])
        for keeper in (self, *self._beside.values()):
            pieces.set_adam_step(keeper._engine, manifest.step)
            pieces.use_masters(keeper._engine, keeper._plan.stage)

    def export(self, folder: Path, step: int, *, masters: bool) -> dict[str, tuple[int, str]]:
        """Write what a later training goes on with: Adam's moments and step, and the masters if the policy is
        published in less than those.
        """
        folder.mkdir(parents=True, exist_ok=True)
        held = [p for p in self._held(own=True) if masters or p.kind != pieces.MASTER]
        files = _merged(self._ranks.gather(self._sealed(folder, held)))
        if self._ranks.first:
            manifest = replace(self._manifest(step, {"masters": int(masters)}), files=files)
            write_atomic(folder / checkpoint.MANIFEST, checkpoint.to_json(manifest))
        self._ranks.barrier()
        return files

    def adopt(self, folder: Path) -> int:
        """Take over what `export` wrote, whatever ranks and stage did; returns its step."""
        fault, manifest = self._look(folder)
        if fault:
            raise ValueError(
                f"{folder}: {fault}; remove the training that published it, and resume to redo it"
            )
        masters = manifest.extra["masters"]
        held = [p for p in self._held(own=False) if masters or p.kind != pieces.MASTER]
        self._fill(folder, manifest, held)
        return manifest.step

    def _held(self, *, own: bool) -> Iterator[Piece]:
        """The training state on this rank; at stage 0, where all ranks have all of it, only its share if
        `own`.
        """
        stage = self._plan.stage
        for piece in chain(
            pieces.masters(self._engine, self._lm, stage), pieces.moments(self._engine, self._lm, stage)
        ):
            yield piece.share(self._ranks.rank, self._ranks.size) if own and stage == 0 else piece
        for name, keeper in self._beside.items():
            yield from (replace(p, name=f"{name}/{p.name}") for p in keeper._held(own=own))


class Behind:
    """One piece of work at a time, done by a thread that does not outlive its process."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._errors: list[Exception] = []

    def start(self, work: Callable[[], None]) -> None:
        assert self._thread is None, "the work before it was not waited for"
        self._thread = threading.Thread(target=self._do, args=(work,), name="behind", daemon=True)
        self._thread.start()

    def settle(self) -> bool:
        """Wait for the work, and raise what it raised; whether there was any."""
        if self._thread is None:
            return False
        self._thread.join()
        self._thread = None
        if self._errors:
            raise self._errors.pop()
        return True

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 (raised again where it is waited for)
            self._errors.append(error)


def _merged(parts: Sequence[dict[str, tuple[int, str]]]) -> dict[str, tuple[int, str]]:
    return {name: sealed for part in parts for name, sealed in part.items()}
