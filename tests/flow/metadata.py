"""What one run asks of the file system's metadata server, counted call by call; the driver of `test_metadata`.

Every shard of a run with deterministic engines is done by the real task, as on a Slurm node. Calls that concern the run directory are counted
by an audit hook, and by wrapping `os.stat` and the like, which raises no audit event. Run as a program, it prints the counts as JSON.
"""

import json
import os
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import deterministic
import torch
from deterministic import CONFIG, Engine, new_root

from jobs.chain.gate import Gate
from jobs.chain.task import Task
from jobs.plan.chain import after_of, plan
from serl.engines import checkpoint, generator, pieces
from serl.engines.pieces import Piece
from serl.records import to_jsonl
from serl.run.rundir import Run, Shard
from tests.conftest import run_config

AUDITED = {
    "open",
    "os.rename",
    "os.link",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "os.utime",
    "os.truncate",
    "os.chmod",
}
WRAPPED = ("stat", "lstat", "access")
SCORE = {"shards": 2, "benchmarks": ["arithmetic"], "max_tokens": 60, "part_prompts": 4}


class Census:
    """Counts of calls, by name, on paths under `root`."""

    def __init__(self, root: Path):
        self.calls: Counter[str] = Counter()
        self._root = str(root)
        sys.addaudithook(self._audit)
        for name in WRAPPED:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _audit(self, event: str, arguments: tuple) -> None:
        if event in AUDITED and arguments:
            self._see(event.removeprefix("os."), arguments[0])

    def _wrapped(self, name: str, call: Callable) -> Callable:
        def counted(path, *args, **kwargs):
            self._see(name, path)
            return call(path, *args, **kwargs)

        return counted

    def _see(self, name: str, path: object) -> None:
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(self._root):
            self.calls[name] += 1


def inodes(root: Path) -> set[str]:
    return {
        os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in (*folders, *files)
    }


def attempt(run: Run, shard: Shard, job_id: int, *, census: Census) -> dict:
    """One attempt at a shard, as its job on a node makes it, and what it cost; `lasting` are the files and folders that stay."""
    folder = run.root / "logs" / "job"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "SLURM_JOB_ID": str(job_id),
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
        "SUBMITIT_EXECUTOR": "slurm",
        "SUBMITIT_FOLDER": str(folder),
    }
    gate = Gate(
        stages=tuple((int(name[1:4]), name[5:]) for name in after_of(run.config, shard.round, shard.stage))
    )
    task = Task(
        root=str(run.root),
        shard=shard,
        submission=0,
        device="cpu",
        cores=1,
        folder=str(folder),
        launcher=None,
        gate=gate,
    )
    before, _ = inodes(run.root), census.calls.clear()
    assert task() == "done"
    calls = dict(census.calls)
    lasting = inodes(run.root) - before
    return {
        "shard": str(shard),
        "stage": shard.stage,
        "calls": calls,
        "total": sum(calls.values()),
        "inodes": len(lasting),
    }


def checkpoints(root: Path, census: Census, number: int) -> dict:
    """A checkpoint of two ranks' files written, published, and the ones before the last two pruned: the mean of
    `number`.
    """
    census.calls.clear()
    root.mkdir(parents=True)
    for step in range(1, number + 1):
        partial = checkpoint.partial_folder(root, step, "1-0")
        partial.mkdir()
        files = {}
        for rank in range(2):
            held = [Piece(kind="master", name="w", start=rank, value_N=torch.zeros(1))]
            files |= {p.name: sealed for p, sealed in pieces.write(partial, f"rank_{rank:05d}", held).items()}
        checkpoint.publish(
            partial,
            checkpoint.Manifest(step=step, world_size=2, zero=1, dtype="float32", extra={}, files=files),
        )
        checkpoint.prune(root, keep=2)
    return {
        "stage": "checkpoint",
        "calls": dict(census.calls),
        "total": sum(census.calls.values()) / number,
        "inodes": len(inodes(root)),
    }


def main(folder: Path) -> None:
    root = new_root(folder)
    (folder / "benchmarks").mkdir(exist_ok=True)
    rows = [
        {"id": str(i), "question": f"What is {i} plus {i}?", "answer": str(2 * i), "kind": "sum"}
        for i in range(16)
    ]
    (folder / "benchmarks/arithmetic.jsonl").write_bytes(to_jsonl(rows))
    config = CONFIG | {"rounds": 1, "stages": [*CONFIG["stages"], "score"], "score": SCORE}
    run = Run.create(root, run_config(config), "test")
    generator.Generator = Engine
    sys.modules["serl.stages.train.run"] = types.ModuleType("serl.stages.train.run")
    sys.modules["serl.stages.train.run"].run = deterministic.train
    census = Census(root)
    costs = [
        attempt(run, shard, number, census=census)
        for number, shard in enumerate((s for job in plan(run.config, run.done) for s in job.missing), 1)
    ]
    costs.append(checkpoints(root / "checkpoints", census, 6))
    print(json.dumps(costs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
