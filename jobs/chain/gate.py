"""An attempt on Slurm: whether it may begin, and what its batch script is asked for when it must not go on.

The script is asked by the exit code (`EXIT_REQUEUE`) or a file (`wish_path`); nothing here calls scontrol.
"""

import os
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jobs.runs.failures import BLOCKED, failure, failure_path, fruitless, job_of, record_failure, tries_path
from jobs.runs.queue import EXIT_REQUEUE, SlurmError, at_work, look_at_queue, recorded
from serl.run.files import write_atomic
from serl.run.rundir import Run, Shard
from serl.run.watchdog import Post, strike
from serl.safety.checkup import Unsafe

MAX_RAISED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What must be there before a Slurm job can do its work."""

    stages: tuple[tuple[int, str], ...]

    def missing(self, run: Run) -> list[Shard]:
        return [s for round, stage in self.stages for s in run.shards(round, stage) if not run.done(s)]

    def lost(self, run: Run) -> list[Shard]:
        """Those that no job in the queue brings; the queue first: what left it by then has its manifest."""
        try:
            queue = [q for q in look_at_queue() if not q.held]
        except SlurmError:
            return []  # nobody can tell: wait
        coming = at_work(recorded(run), queue)
        makers = {s: run.config.stage(s.round, s.stage).maker for s in self.missing(run)}
        return [s for s, maker in makers.items() if (maker, s.index) not in coming]


def wish_path(folder: str | Path, job_id: str) -> Path:
    """Where a job tells its batch script what to do; a file, because the exit code may be that of a rank
    which was ended for leaving last.

    The script removes it before the next attempt.
    """
    return Path(folder) / f"wish-{job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An attempt of a job at a shard. `hold`: whether the job holds itself after too many tries; in a lane of
    a sweep it ends instead, for others wait behind it.
    """

    run: Run
    shard: Shard
    attempt: str
    folder: str
    gate: Gate
    max_attempts: int
    hold: bool

    @property
    def job(self) -> str:
        return job_of(self.attempt)

    def allowed(self) -> bool:
        """Waits in the queue for predecessors that live; gives up after others, and after fruitless tries."""
        if self.run.done(self.shard):
            return True  # a job that ended within its grace time is run again
        if self.gate.missing(self.run):
            lost = self.gate.lost(self.run)
            if not lost and self.gate.missing(self.run):
                sys.exit(EXIT_REQUEUE)
            if lost:
                more = f" and {len(lost) - 1} more" if lost[1:] else ""
                self.fail(f"{BLOCKED} {lost[0]}{more} not done, and no job in the queue will do that")
                return False
        self._count()
        return True

    def _count(self) -> None:
        """Stop trying where that was done often enough: hold the job, or let it end.

        An exception of a rank looks to Slurm like the death of its peers, which are killed for it; so a few
        are tried again.
        """
        tries, before = fruitless(self.run, self.shard), failure(self.run, self.shard)
        same = before is not None and job_of(before["attempt"]) == self.job
        if same and tries > 1 and before["times"] >= MAX_RAISED:
            self.leave("")
        if before is not None and (tries == 1 or not same):
            failure_path(self.run, self.shard).unlink()
        if tries > self.max_attempts:
            tries_path(self.run, self.shard).unlink()  # whoever releases the job gives it as many again
            word = "held" if self.hold else "given up"
            self.fail(f"{word}: {self.max_attempts} attempts without progress; their log is in {self.folder}")
            self.leave("requeuehold" if self.hold else "")

    def leave(self, wish: str) -> NoReturn:
        write_atomic(wish_path(self.folder, self.job), wish.encode())
        sys.exit(EXIT_REQUEUE)

    def fail(self, reason: str, trace: str = "") -> None:
        record_failure(self.run, self.shard, self.attempt, reason, trace)

    def raised(self, error: Exception) -> None:
        self.fail(f"{type(error).__name__}: {error}", traceback.format_exc())

    def try_elsewhere(self, post: Post, fault: Exception) -> None:
        """No fault of the shard: a few more attempts, without a node from its second fault on."""
        self.raised(fault)
        strike(post, [post.host], "device fault")
        said = failure(self.run, self.shard)
        if said is not None and said["times"] < MAX_RAISED:
            sys.exit(EXIT_REQUEUE)

    def halt(self, unsafe: Unsafe) -> None:
        """Every attempt would be refused: none is made. A held job keeps its place, and those behind it."""
        self.fail(str(unsafe))
        if unsafe.verdict == "hold" and self.hold:
            self.leave("requeuehold")


def node() -> str:
    """This machine as its scheduler calls it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
