"""The picklable callable that a job runs: the only bridge from scheduling to `serl.stages`, and the only reader of a job's environment.

On Slurm it asks the batch script for what it needs, by its exit code (`EXIT_REQUEUE`) or a file (`hold_path`), and calls no scontrol itself.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import submitit

from jobs.plan import steps
from jobs.runs import Process
from serl.config import StageName
from serl.events import Events
from serl.files import write_atomic
from serl.preempt import Preempted, Stop
from serl.rundir import Run, Shard
from serl.stages import Work, execute

Outcome = Literal["done", "stopped", "blocked"]
EXIT_REQUEUE = 75
WATCH_S = 1.0
RENDEZVOUS_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What must be there before a Slurm job can do its work, and the jobs that would bring it."""

    stages: tuple[tuple[int, StageName], ...]
    ids: tuple[str, ...]

    def missing(self, run: Run) -> list[Shard]:
        return [s for round, stage in self.stages for s in run.shards(round, stage) if not run.done(s)]

    def hopeless(self) -> bool:
        """Whether no predecessor is left in the queue that could still finish."""
        if not self.ids:
            return True
        asked = subprocess.run(["squeue", "--noheader", f"--jobs={','.join(self.ids)}", "--format=%T"], capture_output=True, text=True, check=False)
        gone = asked.returncode != 0 and "Invalid job id" in asked.stderr
        return gone or (asked.returncode == 0 and not asked.stdout.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One attempt at one shard. References only, no data: its pickle is small and holds no progress."""

    root: str
    shard: Shard
    submission: int
    device: Literal["cpu", "cuda"]
    cores: int
    folder: str
    launcher: Process | None
    gate: Gate | None = None
    max_attempts: int = 1

    def __call__(self) -> Outcome:
        job = submitit.JobEnvironment()
        on_slurm = self.gate is not None
        stop = Stop(end=float(os.environ["SLURM_JOB_END_TIME"]) if on_slurm and "SLURM_JOB_END_TIME" in os.environ else None).listen()
        if self.launcher is not None:
            threading.Thread(target=_leave_with, args=(self.launcher, stop), daemon=True).start()
        run = Run.open(Path(self.root))
        attempt = f"{job.job_id}-{os.environ.get('SLURM_RESTART_COUNT', '0') if on_slurm else self.submission}"
        if on_slurm:
            _drop_half_written(job)
            if not self._may_start(run, job, attempt):
                return "blocked"
        if self.shard.stage == "train":
            _join_ranks(job, Path(self.folder) / f"rendezvous-{attempt}.json", address=socket.gethostname() if on_slurm else "127.0.0.1")
        writer = f"{self.shard.stage}-r{self.shard.round:03d}-{self.shard.index:05d}-{attempt}-{job.global_rank}"
        events = Events(run.root / "events", writer, stage=self.shard.stage, round=self.shard.round, shard=self.shard.index)
        work = Work(run=run, shard=self.shard, attempt_id=attempt, device=self.device, cores=self.cores, stop=stop, events=events)
        try:
            execute(work)
        except Preempted:
            events.add("stopped")
            if on_slurm:
                sys.exit(EXIT_REQUEUE)
            return "stopped"
        except Exception as e:
            if on_slurm and job.global_rank == 0:
                record_failure(run, self.shard, attempt, f"{type(e).__name__}: {e}", traceback.format_exc())
            raise
        return "done"

    def _may_start(self, run: Run, job: submitit.JobEnvironment, attempt: str) -> bool:
        """Wait in the queue for predecessors that still live; give up, with a record, after those that do not. Hold after fruitless tries."""
        assert self.gate is not None
        first, hold = job.global_rank == 0, hold_path(self.folder, job.job_id)
        if first:
            hold.unlink(missing_ok=True)
        if missing := self.gate.missing(run):
            if not self.gate.hopeless():
                sys.exit(EXIT_REQUEUE)
            if first and not run.done(self.shard):
                record_failure(run, self.shard, attempt, f"blocked: {missing[0]} and {len(missing) - 1} other shards are not done, and nothing in the queue will do them", "")
            return False
        if first and _fruitless(run, self.shard) > self.max_attempts:
            record_failure(run, self.shard, attempt, f"held: {self.max_attempts} attempts without progress", "")
            hold.touch()
            sys.exit(EXIT_REQUEUE)
        return True


def _fruitless(run: Run, shard: Shard) -> int:
    """How many attempts in a row, this one included, found the shard's folder as the one before had: no part, no checkpoint more."""
    folder = run.stage_dir(shard.round, shard.stage) / shard.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tries.json"
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p != path and not p.name.startswith("."))
    before = json.loads(path.read_bytes()) if path.exists() else {"found": None, "tries": 0}
    tries = before["tries"] + 1 if before["found"] == found else 1
    write_atomic(path, json.dumps({"found": found, "tries": tries}).encode())
    return tries


def hold_path(folder: str, job_id: str) -> Path:
    """Where a job tells its batch script to hold it; a file, because the exit code may be that of a rank which was ended for leaving last."""
    return Path(folder) / f"hold-{job_id}"


def failure_path(run: Run, shard: Shard) -> Path:
    return run.root / "failures" / f"r{shard.round:03d}-{shard.stage}-{shard.index:05d}.json"


def record_failure(run: Run, shard: Shard, attempt: str, reason: str, trace: str) -> None:
    """Why a job gave up, for status and for people; a later success makes it history."""
    path = failure_path(run, shard)
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps({"shard": str(shard), "attempt": attempt, "reason": reason, "trace": trace, "time": round(time.time(), 3)}).encode())


def failures(run: Run) -> list[dict]:
    """The recorded failures of shards that are still not done."""
    found = []
    for round, stage in steps(run.config):
        for shard in run.shards(round, stage):
            path = failure_path(run, shard)
            if path.exists() and not run.done(shard):
                found.append(json.loads(path.read_bytes()))
    return found


def _drop_half_written(job: submitit.JobEnvironment) -> None:
    """submitit refuses to write a result beside the torn one of an attempt that was killed in mid-write, for ever."""
    job.paths.result_pickle.with_suffix(".pkl.save_tmp").unlink(missing_ok=True)


def _leave_with(launcher: Process, stop: Stop) -> None:
    """Without its launcher a local job has nobody to hand its result to: stop at the next safe point."""
    while launcher.alive():
        time.sleep(WATCH_S)
    stop.requested = True


def _join_ranks(job: submitit.JobEnvironment, path: Path, *, address: str) -> None:
    """Tell torch.distributed who is who. Rank 0 picks a free port and says so in a file of this attempt."""
    if job.global_rank == 0:
        with socket.socket() as s:
            s.bind(("", 0))
            write_atomic(path, json.dumps({"address": address, "port": s.getsockname()[1]}).encode())
    deadline = time.monotonic() + RENDEZVOUS_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: rank 0 did not announce itself within {RENDEZVOUS_S:.0f} s; see its log beside this one")
        time.sleep(0.05)
    meeting = json.loads(path.read_bytes())
    os.environ.update(
        RANK=str(job.global_rank), WORLD_SIZE=str(job.num_tasks), LOCAL_RANK=str(job.local_rank),
        MASTER_ADDR=meeting["address"], MASTER_PORT=str(meeting["port"]),
    )  # fmt: skip
