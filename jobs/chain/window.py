"""A user's window: Slurm has only so many jobs of one user in its queue (MaxSubmitJobs), or of all
(MaxJobCount); arrays count by elements.

Nobody can be asked how much room is left, since limits of users, accounts, QOS and partitions add up. So what
is refused for that reason is offered again as smaller arrays until nothing more fits, and the rest is left to
a *relay*: a small job that has a place in the window, waits until half of what is in the queue has ended,
runs the same submission code on its node, and requeues itself while something is left.
"""

import contextlib
import re
import shlex
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.chain.batch import comment, errand_text, sbatch, teardown
from jobs.plan.cluster import Slurm
from jobs.runs.queue import (
    DEFAULT_MAX_ARRAY,
    EXIT_REQUEUE,
    Journal,
    Queued,
    SlurmError,
    Submission,
    ask_slurm,
    num_jobs,
    settings,
)
from serl.run.files import write_atomic

RELAY = "relay"  # its job name in a journal
RELAY_MIN, RELAY_GB = 60, 2
SOON_S = 60  # until the next try where Slurm did not answer
LATER_S = 300  # until the next look where nothing of ours is in the queue to wait for


class WindowFull(SlurmError):
    """Slurm takes no more jobs for now."""


def full(words: str) -> bool:
    """Whether there are too many jobs: AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit ..."""
    return re.search(r"SubmitJob|queue full|temporarily unable to accept", words) is not None


@dataclass(slots=True)
class Room:
    """How many jobs may still fit, where refusals or MaxJobCount have told; so many in one array."""

    most: int | None = None
    array: int = DEFAULT_MAX_ARRAY

    def offer(self, wanted: int) -> int:
        """How many to try: all, and where that was too much, half of what can be. 0: there is no room."""
        wanted = min(wanted, self.array)
        if self.most is None or wanted <= 1:
            return wanted if self.most != 0 else 0
        return min(wanted, (self.most + 1) // 2)

    def took(self, number: int) -> None:
        self.most = None if self.most is None else max(0, self.most - number)

    def refused(self, number: int) -> None:
        self.most = number - 1 if self.most is None else min(self.most, number - 1)


def room_in_controller() -> Room:
    """Counted, for beyond MaxJobCount sbatch sleeps for minutes. Other limits are not known here."""
    told = {key: int(value) for key, value in settings().items() if value.isdigit()}
    most = max(0, told["MaxJobCount"] - 1 - num_jobs()) if "MaxJobCount" in told else None
    return Room(most, max(1, told.get("MaxArraySize", DEFAULT_MAX_ARRAY)))  # indices start at 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What goes on submitting for a run, or for a whole sweep: `arguments` of python, with `code` first on
    its path, and one more: a file.

    It is to pass that file on as the `note` of `jobs.chain.slurm.submit_missing`, and to exit with 0 when
    everything is submitted, but with EXIT_REQUEUE when something is left, after `come_back` wrote the note
    (submit_missing does): then it runs again. `folder` takes its log and the journal of its submissions
    (`slurm.jsonl`), `name` is told in its job's name. To be killed, or run twice at once, must do it no harm.
    """

    folder: Path
    name: str
    cluster: Slurm
    code: Path
    arguments: tuple[str, ...]

    def text(self, token: str, after: str | None) -> str:
        own, log = self.cluster.errand(), self._log(token)
        small = {"cpus_per_task": 1, "mem_gb": own.mem_gb and min(RELAY_GB, own.mem_gb), "gpus_per_node": 0}
        small |= {"time_min": min(RELAY_MIN, own.time_min)}
        options = {
            "job_name": f"serl-{self.name}-{RELAY}",
            "comment": comment(run=self.name, stage=RELAY, token=token),
            "output": str(log / "%j_0_log.out"),
            "open_mode": "append",
            "requeue": True,
        } | ({"dependency": f"afterany:{after}"} if after else {"begin": "now+60"})
        python = self.cluster.python or shlex.quote(sys.executable)
        command = f"{python} -u {shlex.join(self.arguments)} {shlex.quote(str(log))}/after-$me"
        again = "[ ! -s {folder}/after-$me ] || scontrol update JobId=$me $(cat {folder}/after-$me)"
        ending = (*teardown(log, then=again), "exit $code")
        return errand_text(self.code, self.cluster, own.model_copy(update=small), options, command, *ending)

    def queued(self, queue: Sequence[Queued]) -> list[Queued]:
        """Its jobs in the queue."""
        tokens = {s.token for s in Journal(self.folder).submissions() if s.job == RELAY}
        return [q for q in queue if q.token in tokens]

    def dismiss(self, queue: Sequence[Queued]) -> None:
        """Nothing is left to it, so that one that waits for its turn may go."""
        if idle := [q.id for q in self.queued(queue) if q.state == "PENDING"]:
            ask_slurm(["scancel", *idle])

    def keep_place(self, queue: Sequence[Queued], after: str | None) -> Submission:
        """Have it in the queue, once, behind `after`. Raises WindowFull where there is no place for it."""
        journal = Journal(self.folder)
        for q in self.queued(queue):
            if not q.held:
                return Submission(token=q.token, job=RELAY, shards=(), id=q.id)
        intent = Submission(token=uuid.uuid4().hex[:12], job=RELAY, shards=())
        journal.add(intent)
        script = self._log(intent.token) / "relay.sh"
        script.parent.mkdir(parents=True)
        write_atomic(script, self.text(intent.token, after).encode())
        try:
            done = replace(intent, id=sbatch(script))
        except SlurmError as e:
            raise WindowFull(str(e)) if full(str(e)) else e
        journal.add(done)
        return done

    def _log(self, token: str) -> Path:
        return self.folder / "logs" / RELAY / token


def aim(relay: Submission, after: str | None) -> None:
    """Let a relay that waits in the queue wait for this one; one that runs finds out itself."""
    with contextlib.suppress(SlurmError):
        ask_slurm(["scontrol", "update", f"JobId={relay.id}", _until(after)])


def come_back(note: Path, after: str | None, later_s: int = LATER_S) -> None:
    """What the relay that runs here waits for before its next start."""
    write_atomic(note, _until(after, later_s).encode())


def _until(after: str | None, later_s: int = LATER_S) -> str:
    """As scontrol sets it."""
    return f"Dependency=afterany:{after}" if after else f"StartTime=now+{later_s}"


def one_turn(note: Path, submit: Callable[[], Sequence[Submission]]) -> int:
    """Submit what fits; the exit code says whether the relay is needed again."""
    note.unlink(missing_ok=True)
    try:
        new = submit()
    except (SlurmError, OSError) as e:  # a file system may be away for a while, too
        print(f"{e}; another try in {SOON_S} s", file=sys.stderr)
        come_back(note, None, SOON_S)
        return EXIT_REQUEUE
    for s in new:
        print("more is left" if s.job == RELAY else f"{s.run} {s.job}: {len(s.shards)} shards as job {s.id}")
    return EXIT_REQUEUE if new and new[-1].job == RELAY else 0


def middle(waiting: Sequence[str]) -> str | None:
    """Of the jobs in the queue, in the order of the plan, the one with which about half of them are over."""
    return waiting[len(waiting) // 2] if waiting else None


def element(submission: Submission, position: int) -> str:
    """The id of one job of a submission; an array of one was submitted as a plain job."""
    return f"{submission.id}_{position}" if submission.array else str(submission.id)
