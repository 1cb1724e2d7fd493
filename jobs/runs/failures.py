"""What is written down of attempts that do not get through: how many there were, and why the last one failed.

Of jobs on Slurm, whose tries nobody watches.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from serl.run.files import write_atomic
from serl.run.rundir import Run, Shard

PROGRESS = ("part_", "step_")  # what an attempt leaves to the next one: generated parts, checkpoints
THIS_IS = "this is attempt "  # the first words of a task in its log
BLOCKED = "blocked:"  # what a reason begins with that is another shard's
DEVICE_FAULTS = (
    "cuda error", "cuda driver error", "acceleratorerror", "uncorrectable ecc", "device-side", "xid"
)  # fmt: skip


def tries_path(run: Run, shard: Shard) -> Path:
    return run.stage_dir(shard.round, shard.stage) / shard.name / "tries.json"


def fruitless(run: Run, shard: Shard) -> int:
    """How many attempts in a row, this one included, found what the one before had: no part, no checkpoint
    more.

    Whatever else lies there is named after an attempt that died while it published or saved, and is no
    progress however often that happens.
    """
    path = tries_path(run, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    folders = ["", *(name for name in os.listdir(path.parent) if name.startswith("checkpoints."))]
    files = [os.path.join(folder, name) for folder in folders for name in os.listdir(path.parent / folder)]
    found = sorted(name for name in files if os.path.basename(name).startswith(PROGRESS))
    try:
        before = json.loads(path.read_bytes())
    except FileNotFoundError:
        before = {"found": None, "tries": 0}
    tries = before["tries"] + 1 if before["found"] == found else 1
    write_atomic(path, json.dumps({"found": found, "tries": tries}).encode())
    return tries


def failure_path(run: Run, shard: Shard) -> Path:
    name = f"r{shard.round:03d}-{shard.stage}-{shard.index:05d}.json"
    return run.home(shard.round, shard.stage) / "failures" / name


def failure(run: Run, shard: Shard) -> dict | None:
    path = failure_path(run, shard)
    return json.loads(path.read_bytes()) if path.exists() else None


def record_failure(run: Run, shard: Shard, attempt: str, reason: str, trace: str = "") -> None:
    """Why a job gave up, for status and for people; `times` counts such attempts of the same job.

    The first word of an attempt counts: its other ranks then fail for want of the first.
    """
    before = failure(run, shard)
    if before and before["attempt"] == attempt:
        return
    same = before and job_of(before["attempt"]) == job_of(attempt)
    record = {"shard": str(shard), "attempt": attempt, "times": before["times"] + 1 if same else 1}
    record |= {"reason": reason, "trace": trace, "time": round(time.time(), 3)}
    path = failure_path(run, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(record).encode())


def job_of(attempt: str) -> str:
    """The job whose attempt it is."""
    return attempt.rpartition("-")[0]


def forget_failures(run: Run, shards: Sequence[Shard]) -> None:
    """They are submitted anew. All are of one stage: where no shard of it ever failed, that is one look."""
    for shard in shards if shards and failure_path(run, shards[0]).parent.exists() else ():
        failure_path(run, shard).unlink(missing_ok=True)


def failures(run: Run) -> list[dict]:
    """The recorded failures of shards that are still not done."""
    shards = (shard for stage in run.config.stages for shard in run.shards(stage.round, stage.name))
    return [found for shard in shards if (found := failure(run, shard)) and not run.done(shard)]


def is_device_fault(error: BaseException) -> bool:
    """Whether CUDA, NCCL or the driver say that a GPU failed; running out of memory is the caller's."""
    said = f"{type(error).__name__}: {error}".lower()
    return any(word in said for word in DEVICE_FAULTS) and "out of memory" not in said
