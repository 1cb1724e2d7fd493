"""What Slurm has in its queue, and what a run remembers of its submissions; the two are matched by a token in
each job's comment.

Job ids alone would not do: a launcher can die between sbatch and its record, and a controller that lost its
state gives numbers out again.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serl.run.files import append_row, read_rows
from serl.run.rundir import Run

EXIT_REQUEUE = 75  # says to its batch script that a job has more to do
DEFAULT_MAX_ARRAY = 1001
ANSWER_S = 120.0
SETTLE_S = 60.0
HABITS = ("SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT")


class SlurmError(ValueError):
    """Slurm refused, or is not there; the message carries its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One sbatch: written down before it is made (`id` None) and after. `token` is in the job's comment, so
    that a lost one can be found.

    `array`: it was submitted as one. `spare`: its shard has a job already, which is slow.
    """

    token: str
    job: str
    shards: tuple[int, ...]
    id: str | None = None
    array: bool = False
    spare: bool = False
    run: str = ""  # whose job it is; of a shared stage, one of the runs that use it


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A job in the queue: its id (with the array index), state, whether somebody has to release it, node list
    or reason, its submission's token.
    """

    id: str
    state: str
    held: bool
    where: str
    token: str

    @property
    def position(self) -> int:
        """Which shard of its submission it does; an array of one is submitted as a plain job."""
        return int(self.id.partition("_")[2] or 0)


class Journal:
    """`slurm.jsonl`: intents and submissions of a run, the latest word on each token."""

    def __init__(self, root: Path):
        self._path = root / "slurm.jsonl"

    def __bool__(self) -> bool:
        return self._path.exists()

    def submissions(self) -> list[Submission]:
        """Where a crash tore a line, the intent before it, or the comment in the queue, still tells."""
        latest = {
            row["token"]: Submission(**row | {"shards": tuple(row["shards"])})
            for row in read_rows(self._path)
        }
        return list(latest.values())

    def add(self, submission: Submission) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)  # a shared stage's is made by whoever is first
        append_row(self._path, asdict(submission))


def recorded(run: Run) -> list[Submission]:
    """A run's own, and those of the stages that it shares, whichever run made them."""
    homes = dict.fromkeys([run.root, *(run.home(s.round, s.name) for s in run.config.stages)])
    return [s for home in homes for s in Journal(home).submissions()]


def at_work(submissions: Iterable[Submission], queue: Iterable[Queued]) -> dict[tuple[str, int], Queued]:
    """Which job does which (job name, shard index); a spare is told only where the first has gone."""
    by_token = {s.token: s for s in submissions}
    known = [(s, q) for q in queue if (s := by_token.get(q.token)) and q.position < len(s.shards)]
    return {(s.job, s.shards[q.position]): q for s, q in sorted(known, key=lambda pair: not pair[0].spare)}


def look_at_queue() -> list[Queued]:
    """This user's queue, arrays element by element."""
    return list(_parse_queue(_squeue("--me", "--format=%i\t%T\t%Q\t%R\t%k")))


def settled_queue(known: Iterable[Submission], renew: Callable[[], None]) -> list[Queued]:
    """Our jobs, once none is on its way out of the queue or back into it: nobody could tell which."""
    tokens = {s.token for s in known}
    deadline = time.monotonic() + SETTLE_S
    while True:
        ours = [q for q in look_at_queue() if q.token in tokens]
        if all(q.state != "COMPLETING" for q in ours) or time.monotonic() > deadline:
            return [q for q in ours if q.state != "COMPLETING"]
        renew()
        time.sleep(1)


def running_s() -> dict[str, int]:
    """For how many seconds each of this user's running jobs has run, since it was last started."""
    pairs = (line.split("\t") for line in _squeue("--me", "--states=RUNNING", "--format=%i\t%M"))
    return {id.strip(): seconds(elapsed.strip()) for id, elapsed in pairs}


def num_jobs() -> int:
    """Of all users, in any state that the controller still remembers."""
    return len(_squeue("--states=all", "--format=%i"))


def _squeue(*options: str) -> list[str]:
    return ask_slurm(["squeue", "--noheader", "--array", *options]).splitlines()


def seconds(text: str) -> int:
    """Of Slurm's [days-][[hours:]minutes:]seconds; what is no number (INVALID) counts as nothing."""
    days, _, rest = text.rpartition("-")
    clock = [int(part) if part.isdigit() else 0 for part in rest.split(":")]
    return int(days or 0) * 86400 + sum(n * 60**i for i, n in enumerate(reversed(clock)))


def _parse_queue(lines: Sequence[str]) -> Iterator[Queued]:
    """Slurm has many words for "held", but always the priority 0. No comment of ours has two lines."""
    for fields in (line.split("\t", 4) for line in lines):
        if len(fields) < 5:
            continue
        id, state, priority, where, comment = fields
        yield Queued(
            id=id.strip(),
            state=state,
            held=state == "PENDING" and priority.strip() == "0",
            where=where,
            token=_token(comment),
        )


def _token(comment: str) -> str:
    """Empty for jobs that are not of this project."""
    try:
        content = json.loads(comment)
    except json.JSONDecodeError:
        return ""
    return str(content.get("token", "")) if isinstance(content, dict) else ""


def settings() -> dict[str, str]:
    """Of the controller."""
    return parse_settings(ask_slurm(["scontrol", "show", "config"]))


def parse_settings(text: str) -> dict[str, str]:
    """Its other sections have keys of their own and do no harm."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def reach_slurm() -> None:
    """Before anything is created: raises SlurmError where Slurm does not answer here, with what to do."""
    try:
        settings()
    except SlurmError as e:
        remedy = (
            'run this on a login node of the cluster (for a lab first: eval "$(slurm/lab env)"), '
            "or use --cluster local"
        )
        raise SlurmError(f"{' '.join(str(e).split())}; {remedy}") from e


def ask_slurm(command: list[str]) -> str:
    """The answer to the command alone: a user's SQUEUE_STATES=all would be another question."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(HABITS)}
    try:
        return subprocess.run(
            command, env=plain, capture_output=True, text=True, errors="replace", check=True, timeout=ANSWER_S
        ).stdout
    except FileNotFoundError:
        raise SlurmError(f"{command[0]}: not found; is this a login node of the cluster?") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{' '.join(command[:2])}: no answer within {ANSWER_S:.0f} s; is slurmctld up?"
        ) from None
    except subprocess.CalledProcessError as e:
        raise SlurmError(f"{' '.join(command[:2])}: {e.stderr.strip() or e.stdout.strip()}") from e
