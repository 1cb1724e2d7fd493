"""The picklable callable that a job runs: the only bridge from scheduling to `serl.stages`, and the only
reader of a job's environment.

On Slurm it asks the batch script for what it needs, by its exit code (`EXIT_REQUEUE`) or a file
(`wish_path`), and calls no scontrol itself.
"""

import json
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

from jobs.chain.batch import EXIT_REQUEUE
from jobs.chain.failures import failure, failure_path, fruitless, record_failure, tries_path, wish_path
from jobs.chain.queue import SlurmError, at_work, look_at_queue, recorded
from jobs.plan.chain import job_name
from jobs.runs.processes import Process
from serl.run.events import Events
from serl.run.files import write_atomic
from serl.run.rundir import Run, Shard
from serl.run.signals import Preempted, Stop
from serl.run.watchdog import Post, Watchdog, strike
from serl.safety.checkup import Unsafe
from serl.stages.work import Work, execute

Outcome = Literal["done", "stopped", "blocked", "ended", "halted"]
WATCH_S = 1.0
RENDEZVOUS_S = 300.0
LAST_MOMENT_S = 5.0
BLOCKED = "blocked:"
MAX_RAISED = 3
DEVICE_FAULTS = (
    "cuda error",
    "cuda driver error",
    "acceleratorerror",
    "uncorrectable ecc",
    "device-side",
    "xid",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What must be there before a Slurm job can do its work."""

    stages: tuple[tuple[int, str], ...]

    def missing(self, run: Run) -> list[Shard]:
        return [s for round, stage in self.stages for s in run.shards(round, stage) if not run.done(s)]

    def lost(self, run: Run) -> list[Shard]:
        """The missing shards that no job in the queue will bring. The queue is looked at first: what left it
        by then has its manifest.
        """
        try:
            queue = [q for q in look_at_queue() if not q.held]
        except SlurmError:
            return []  # nobody can tell: wait
        coming = at_work(recorded(run), queue)
        return [s for s in self.missing(run) if (job_name(s.round, s.stage), s.index) not in coming]


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
    hang_s: float = 1800.0
    gpus: int = 0
    # Whether to hold the job after too many tries; in a lane of a sweep it ends instead, for others wait
    # behind it.
    hold: bool = True

    def __call__(self) -> Outcome:
        end = os.environ.get("SLURM_JOB_END_TIME") if self.gate else None
        stop = Stop(end=float(end) if end else None).listen()
        run, job = Run.open(Path(self.root)), submitit.JobEnvironment()
        if self.shard.round > run.config.rounds or self._ended(run):
            return "ended"
        if self.gate is None:
            if self.launcher is not None:
                threading.Thread(target=_leave_with, args=(self.launcher, stop), daemon=True).start()
            return self._work(run, job, f"{job.job_id}-{self.submission}", stop)
        attempt = f"{job.job_id}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
        threading.Thread(target=_leave_in_time, args=(stop,), daemon=True).start()
        _drop_half_written(job)
        try:
            outcome = self._work(run, job, attempt, stop) if self._go(run, job, attempt) else "blocked"
        except Exception as e:
            record_failure(run, self.shard, attempt, f"{type(e).__name__}: {e}", traceback.format_exc())
            raise
        if outcome == "stopped":
            sys.exit(EXIT_REQUEUE)
        return outcome

    def _ended(self, run: Run) -> bool:
        """Whether a sweep ends the trial that this is before this shard."""
        if not run.sweep:
            return False
        from jobs.sweeps.early import ends_here

        return ends_here(run, self.shard)

    def checkpoint(self) -> NoReturn:
        """submitit calls this on a signal that comes before ours is in place, and would fail the job if it
        were not there.
        """
        sys.exit(EXIT_REQUEUE)

    def _work(self, run: Run, job: submitit.JobEnvironment, attempt: str, stop: Stop) -> Outcome:
        writer = (
            f"{self.shard.stage}-r{self.shard.round:03d}-{self.shard.index:05d}-{attempt}-{job.global_rank}"
        )
        events = Events(
            run.root / "events",
            writer,
            stage=self.shard.stage,
            round=self.shard.round,
            shard=self.shard.index,
        )
        watchdog = Watchdog()
        post = Post(
            folder=Path(self.folder), suspects=run.root / "suspects", events=events, job=job.job_id,
            attempt=attempt, rank=job.global_rank, size=job.num_tasks, hang_s=self.hang_s, host=_node(),
        )  # fmt: skip
        kind = run.config.stage(self.shard.round, self.shard.stage).kind
        if not kind.bare:
            watchdog.guard(post)
        if kind.ranks:
            _join_ranks(
                job,
                Path(self.folder) / f"rendezvous-{attempt}.json",
                address=socket.gethostname() if self.gate else "127.0.0.1",
            )
        work = Work(
            run=run, shard=self.shard, attempt_id=attempt, device=self.device, cores=self.cores, stop=stop,
            events=events, watchdog=watchdog, place=_place(job, self.gpus, stop.end),
        )  # fmt: skip
        try:
            execute(work)
        except Preempted:
            events.add(
                "stopped",
                asked=stop.requested,
                left_s=None if stop.end is None else round(stop.end - time.time(), 1),
            )
            return "stopped"
        except Unsafe as e:
            events.add("halted", verdict=e.verdict)
            return self._halt(run, job, attempt, e)
        except Exception as e:
            events.add("failed", error=type(e).__name__)
            if self.gate and kind.array and is_device_fault(e):
                self._try_elsewhere(run, attempt, post, e)
            raise
        finally:
            stop.ignore()
        return "done"

    def _try_elsewhere(self, run: Run, attempt: str, post: Post, fault: Exception) -> None:
        """A GPU that fails is no fault of the shard: a few more attempts, from the second fault of a node on
        without it.
        """
        record_failure(run, self.shard, attempt, f"{type(fault).__name__}: {fault}", traceback.format_exc())
        strike(post, [post.host], "device fault")
        if (said := failure(run, self.shard)) is not None and said["times"] < MAX_RAISED:
            sys.exit(EXIT_REQUEUE)

    def _halt(self, run: Run, job: submitit.JobEnvironment, attempt: str, unsafe: Unsafe) -> Outcome:
        """The data says no, as it would on every attempt: none is made. A job that is held keeps its place in
        the queue, and those behind it.
        """
        if self.gate and job.global_rank == 0:
            record_failure(run, self.shard, attempt, str(unsafe), "")
            if unsafe.verdict == "hold" and self.hold:
                write_atomic(wish_path(self.folder, job.job_id), b"requeuehold")
                sys.exit(EXIT_REQUEUE)
        return "halted"

    def _go(self, run: Run, job: submitit.JobEnvironment, attempt: str) -> bool:
        """Rank 0 decides for all: where file attributes are cached, another rank may not see what it sees."""
        path = Path(self.folder) / f"start-{attempt}.json"
        if job.global_rank == 0:
            go = self._may_start(run, job, attempt)
            if job.num_tasks > 1:
                write_atomic(path, json.dumps(go).encode())
            return go
        wait_for_file(path)
        return bool(json.loads(path.read_bytes()))

    def _may_start(self, run: Run, job: submitit.JobEnvironment, attempt: str) -> bool:
        """Wait in the queue for predecessors that still live; give up, with a record, after those that do
        not. Hold after fruitless tries.
        """
        assert self.gate is not None
        if run.done(self.shard):
            return True  # a job that ended within its grace time is run again
        if self.gate.missing(run):
            lost = self.gate.lost(run)
            if not lost and self.gate.missing(run):
                sys.exit(EXIT_REQUEUE)
            if lost:
                more = f" and {len(lost) - 1} more" if lost[1:] else ""
                record_failure(
                    run,
                    self.shard,
                    attempt,
                    f"{BLOCKED} {lost[0]}{more} not done, and no job in the queue will do that",
                    "",
                )
                return False
        if (how := self._enough(run, job, attempt)) is not None:
            write_atomic(wish_path(self.folder, job.job_id), how.encode())
            sys.exit(EXIT_REQUEUE)
        return True

    def _enough(
        self, run: Run, job: submitit.JobEnvironment, attempt: str
    ) -> Literal["requeuehold", ""] | None:
        """Whether to stop trying, and what to ask of the batch script: to hold the job, or nothing, which
        ends it.

        An exception of a rank looks to Slurm like the death of its peers, which are killed for it; so a few
        are tried again.
        """
        tries, before = fruitless(run, self.shard), failure(run, self.shard)
        same = before is not None and before["attempt"].rpartition("-")[0] == job.job_id
        if same and tries > 1 and before["times"] >= MAX_RAISED:
            return ""
        if before is not None and (tries == 1 or not same):
            failure_path(run, self.shard).unlink()
        if tries <= self.max_attempts:
            return None
        tries_path(run, self.shard).unlink()  # whoever releases the job gives it as many again
        word = "held" if self.hold else "given up"
        record_failure(
            run,
            self.shard,
            attempt,
            f"{word}: {self.max_attempts} attempts without progress; their log is in {self.folder}",
            "",
        )
        return "requeuehold" if self.hold else ""


def is_device_fault(error: BaseException) -> bool:
    """Whether an accelerator failed, by what CUDA, NCCL and the driver call it; running out of memory is the
    caller's.
    """
    said = f"{type(error).__name__}: {error}".lower()
    return any(word in said for word in DEVICE_FAULTS) and "out of memory" not in said


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _place(job: submitit.JobEnvironment, gpus: int, until: float | None) -> dict[str, str | float]:
    """What accounting asks of an attempt: where it runs, how much of the machine it holds, and its time:
    since when, and until when at most.
    """
    boot_s = time.time() - psutil.Process().create_time()
    where: dict[str, str | float] = {
        "host": _node(),
        "gpus": gpus,
        "ranks": job.num_tasks,
        "nodes": job.num_nodes,
    }
    where |= {"boot_s": round(boot_s, 3)}
    return where if until is None else where | {"until": until}


def _drop_half_written(job: submitit.JobEnvironment) -> None:
    """submitit refuses to write a result beside the torn one of an attempt that was killed in mid-write, for
    ever.
    """
    job.paths.result_pickle.with_suffix(".pkl.save_tmp").unlink(missing_ok=True)


def _leave_in_time(stop: Stop) -> None:
    """Slurm does not requeue what it has to kill for its time limit: what no safe point has ended by then
    ends here, and starts again.
    """
    if stop.end is not None:
        time.sleep(max(0.0, stop.end - LAST_MOMENT_S - time.time()))
        os._exit(EXIT_REQUEUE)


def _leave_with(launcher: Process, stop: Stop) -> None:
    """Without its launcher a local job has nobody to hand its result to: stop at the next safe point."""
    while launcher.alive():
        time.sleep(WATCH_S)
    stop.requested = True


def wait_for_file(path: Path) -> None:
    """What rank 0 has to say to the others."""
    deadline = time.monotonic() + RENDEZVOUS_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{path}: rank 0 did not announce itself within {RENDEZVOUS_S:.0f} s; see its log beside "
                "this one"
            )
        time.sleep(0.05)


def _join_ranks(job: submitit.JobEnvironment, path: Path, *, address: str) -> None:
    """Tell torch.distributed who is who. Rank 0 picks a free port and says so in a file of this attempt."""
    if job.global_rank == 0:
        with socket.socket() as s:
            s.bind(("", 0))
            write_atomic(path, json.dumps({"address": address, "port": s.getsockname()[1]}).encode())
    wait_for_file(path)
    meeting = json.loads(path.read_bytes())
    os.environ.update(
        RANK=str(job.global_rank), WORLD_SIZE=str(job.num_tasks), LOCAL_RANK=str(job.local_rank),
        MASTER_ADDR=meeting["address"], MASTER_PORT=str(meeting["port"]),
    )  # fmt: skip
