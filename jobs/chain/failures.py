"""What becomes of attempts that do not get through: how many there were, why, and what their job should do
next.

Of jobs on Slurm, whose tries nobody watches.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.plan.chain import steps
from serl.run.files import write_atomic
from serl.run.rundir import Run, Shard

PROGRESS = ("part_", "step_")  # what an attempt leaves to the next one: generated parts, checkpoints


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


def wish_path(folder: str, job_id: str) -> Path:
    """Where a job tells its batch script what to do; a file, because the exit code may be that of a rank
    which was ended for leaving last.

    The script removes it before the next attempt.
    """
    return Path(folder) / f"wish-{job_id}"


def failure_path(run: Run, shard: Shard) -> Path:
    return (
        run.home(shard.round, shard.stage)
        / "failures"
        / f"r{shard.round:03d}-{shard.stage}-{shard.index:05d}.json"
    )


def failure(run: Run, shard: Shard) -> dict | None:
    path = failure_path(run, shard)
    return json.loads(path.read_bytes()) if path.exists() else None


def record_failure(run: Run, shard: Shard, attempt: str, reason: str, trace: str) -> None:
    """Why a job gave up, for status and for people; `times` counts such attempts of the same job.

    The first word of an attempt counts: its other ranks then fail for want of the first.
    """
    before = failure(run, shard)
    if before and before["attempt"] == attempt:
        return
    times = (
        before["times"] + 1
        if before and before["attempt"].rpartition("-")[0] == attempt.rpartition("-")[0]
        else 1
    )
    record = {
        "shard": str(shard),
        "attempt": attempt,
        "times": times,
        "reason": reason,
        "trace": trace,
        "time": round(time.time(), 3),
    }
    failure_path(run, shard).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(failure_path(run, shard), json.dumps(record).encode())


def forget_failures(run: Run, shards: Sequence[Shard]) -> None:
    """They are submitted anew. All are of one stage: where no shard of it ever failed, that is one look."""
    for shard in shards if shards and failure_path(run, shards[0]).parent.exists() else ():
        failure_path(run, shard).unlink(missing_ok=True)


def failures(run: Run) -> list[dict]:
    """The recorded failures of shards that are still not done."""
    found = []
    for round, stage in steps(run.config):
        for shard in run.shards(round, stage):
            path = failure_path(run, shard)
            if path.exists() and not run.done(shard):
                found.append(json.loads(path.read_bytes()))
    return found
