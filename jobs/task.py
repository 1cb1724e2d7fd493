"""The picklable callable that a job runs: the only bridge from scheduling to `serl.stages`, and the only reader of a job's environment."""

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import submitit

from jobs.runs import Process
from serl.events import Events
from serl.files import write_atomic
from serl.preempt import Preempted, Stop
from serl.rundir import Run, Shard
from serl.stages import Work, execute

Outcome = Literal["done", "stopped"]
WATCH_S = 1.0
RENDEZVOUS_S = 300.0


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

    def __call__(self) -> Outcome:
        stop = Stop().listen()
        job = submitit.JobEnvironment()
        if self.launcher is not None:
            threading.Thread(target=_leave_with, args=(self.launcher, stop), daemon=True).start()
        if self.shard.stage == "train":
            _join_ranks(job.global_rank, job.local_rank, job.num_tasks, Path(self.folder))
        attempt = f"{job.job_id}-{self.submission}"
        writer = f"{self.shard.stage}-r{self.shard.round:03d}-{self.shard.index:05d}-{attempt}-{job.global_rank}"
        run = Run.open(Path(self.root))
        work = Work(
            run=run, shard=self.shard, attempt_id=attempt, device=self.device, cores=self.cores, stop=stop,
            events=Events(run.root / "events", writer, stage=self.shard.stage, round=self.shard.round, shard=self.shard.index),
        )  # fmt: skip
        try:
            execute(work)
        except Preempted:
            work.events.add("stopped")
            return "stopped"
        return "done"


def _leave_with(launcher: Process, stop: Stop) -> None:
    """Without its launcher a local job has nobody to hand its result to: stop at the next safe point."""
    while launcher.alive():
        time.sleep(WATCH_S)
    stop.requested = True


def _join_ranks(rank: int, local_rank: int, ranks: int, folder: Path) -> None:
    """Tell torch.distributed who is who. Rank 0 picks a free port and says so in the job's folder, which no other attempt uses."""
    path = folder / "rendezvous.json"
    if rank == 0:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            write_atomic(path, json.dumps({"address": "127.0.0.1", "port": s.getsockname()[1]}).encode())
    deadline = time.monotonic() + RENDEZVOUS_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: rank 0 did not announce itself within {RENDEZVOUS_S:.0f} s; see its log beside this one")
        time.sleep(0.05)
    meeting = json.loads(path.read_bytes())
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(local_rank), MASTER_ADDR=meeting["address"], MASTER_PORT=str(meeting["port"])
    )
