"""The picklable callable that a job runs: the only bridge from scheduling to `serl.stages`, and the only
reader of a job's environment.
"""

import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import psutil
import submitit

from jobs.chain.along import let_begin
from jobs.chain.gate import Entry, Gate, node
from jobs.chain.ranks import agreed, join_ranks, take_gpus
from jobs.runs.failures import THIS_IS, is_device_fault
from jobs.runs.processes import Process
from jobs.runs.queue import EXIT_REQUEUE
from serl.run.events import Events
from serl.run.rundir import Run, Shard
from serl.run.signals import Preempted, Stop
from serl.run.watchdog import Post, Watchdog
from serl.safety.checkup import Unsafe
from serl.stages.work import Work, execute

Outcome = Literal["done", "stopped", "blocked", "ended", "halted", "faulty"]
FAULTY: Outcome = "faulty"  # a GPU failed, which is no fault of the shard
WATCH_S = 1.0
LAST_MOMENT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One attempt at one shard. References only, no data: its pickle is small and holds no progress.

    `gate`: of a job on Slurm. `launcher`: of a process here, whose parent takes its result.
    """

    root: str
    shard: Shard
    submission: int
    device: Literal["cpu", "cuda"]
    cores: int
    folder: str
    launcher: Process | None
    gate: Gate | None = None
    max_attempts: int = 1
    hang_s: float = 1800.0
    gpus: int = 0
    devices: tuple[str, ...] = ()  # of this machine, by their names; a cluster's scheduler says it itself
    hold: bool = True
    cache_gib: float | None = None  # of an engine without a GPU, where its configuration does not say

    def __call__(self) -> Outcome:
        end = os.environ.get("SLURM_JOB_END_TIME") if self.gate else None
        stop = Stop(end=float(end) if end else None).listen()
        run, job = Run.open(Path(self.root)), submitit.JobEnvironment()
        if self.shard.round > run.config.rounds or self._ended(run):
            return "ended"
        if self.gate is not None:
            return self._on_slurm(run, job, stop, self.gate)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices)
        if self.launcher is not None:
            threading.Thread(target=_leave_with, args=(self.launcher, stop), daemon=True).start()
        attempt = f"{job.job_id}-{self.submission}"
        print(f"{THIS_IS}{attempt}", flush=True)
        return self._work(run, job, attempt, stop)

    def _ended(self, run: Run) -> bool:
        """Whether a sweep ends the trial that this is before this shard."""
        if not run.sweep:
            return False
        from jobs.sweeps.early import ends_here

        return ends_here(run, self.shard)

    def checkpoint(self) -> NoReturn:
        """For submitit, on a signal before ours is in place; without it the job would fail."""
        sys.exit(EXIT_REQUEUE)

    def _on_slurm(self, run: Run, job: submitit.JobEnvironment, stop: Stop, gate: Gate) -> Outcome:
        attempt = f"{job.job_id}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
        print(f"{THIS_IS}{attempt}", flush=True)
        entry = Entry(
            run=run, shard=self.shard, attempt=attempt, folder=self.folder, gate=gate,
            max_attempts=self.max_attempts, hold=self.hold,
        )  # fmt: skip
        threading.Thread(target=_leave_in_time, args=(stop,), daemon=True).start()
        _drop_half_written(job)
        try:
            # Rank 0 decides for all: where file attributes are cached, another may not see what it sees.
            if not agreed(job, Path(self.folder) / f"start-{attempt}.json", entry.allowed):
                return "blocked"
            outcome = self._work(run, job, attempt, stop, entry)
        except Exception as e:
            entry.raised(e)
            raise
        if outcome == "stopped":
            sys.exit(EXIT_REQUEUE)
        return outcome

    def _work(
        self, run: Run, job: submitit.JobEnvironment, attempt: str, stop: Stop, entry: Entry | None = None
    ) -> Outcome:
        shard, stage = self.shard, run.config.stage(self.shard.round, self.shard.stage)
        kind = stage.kind
        writer = f"{shard.stage}-r{shard.round:03d}-{shard.index:05d}-{attempt}-{job.global_rank}"
        told = {"stage": shard.stage, "round": shard.round, "shard": shard.index}
        events, watchdog = Events(run.root / "events", writer, **told), Watchdog()
        post = Post(
            folder=Path(self.folder), suspects=run.root / "suspects", events=events, job=job.job_id,
            attempt=attempt, rank=job.global_rank, size=job.num_tasks, hang_s=self.hang_s, host=node(),
        )  # fmt: skip
        if entry and job.global_rank == 0:
            threading.Thread(target=let_begin, args=(run, stage, job.job_id), daemon=True).start()
        if not kind.bare:
            watchdog.guard(post)
        if kind.ranks:
            address = socket.gethostname() if entry else "127.0.0.1"
            join_ranks(job, Path(self.folder) / f"rendezvous-{attempt}.json", address=address)
        if kind.array and job.num_tasks > 1:
            take_gpus(job, self.gpus)
        work = Work(
            run=run, shard=shard, attempt_id=attempt, device=self.device, cores=self.cores, stop=stop,
            events=events, watchdog=watchdog, place=_place(job, self.gpus, stop.end), rank=job.global_rank,
            ranks=job.num_tasks, cache_gib=self.cache_gib,
        )  # fmt: skip
        try:
            execute(work)
        except Preempted:
            left_s = None if stop.end is None else round(stop.end - time.time(), 1)
            events.add("stopped", asked=stop.requested, left_s=left_s)
            return "stopped"
        except Unsafe as e:
            events.add("halted", verdict=e.verdict)
            if entry and job.global_rank == 0:
                entry.halt(e)
            return "halted"
        except Exception as e:
            events.add("failed", error=type(e).__name__)
            if not kind.array or not is_device_fault(e):
                raise
            if entry is None:
                traceback.print_exc()  # the launcher takes it for a failure the second time
                return FAULTY
            entry.try_elsewhere(post, e)
            raise
        finally:
            stop.ignore()
        return "done"


def _place(job: submitit.JobEnvironment, gpus: int, until: float | None) -> dict[str, str | float]:
    """What accounting asks of an attempt: where it runs, how much of the machine it holds, and its time:
    since when, and until when at most.
    """
    boot_s = time.time() - psutil.Process().create_time()
    where: dict[str, str | float] = {"host": node(), "gpus": gpus, "boot_s": round(boot_s, 3)}
    where |= {"ranks": job.num_tasks, "nodes": job.num_nodes}
    return where if until is None else where | {"until": until}


def _drop_half_written(job: submitit.JobEnvironment) -> None:
    """Beside the torn result of an attempt that was killed, submitit would never write another."""
    job.paths.result_pickle.with_suffix(".pkl.save_tmp").unlink(missing_ok=True)


def _leave_in_time(stop: Stop) -> None:
    """What no safe point has ended by then starts again: Slurm requeues nothing that it has to kill."""
    if stop.end is not None:
        time.sleep(max(0.0, stop.end - LAST_MOMENT_S - time.time()))
        os._exit(EXIT_REQUEUE)


def _leave_with(launcher: Process, stop: Stop) -> None:
    """Without its launcher a local job has nobody to hand its result to: stop at the next safe point."""
    while launcher.alive():
        time.sleep(WATCH_S)
    stop.requested = True
