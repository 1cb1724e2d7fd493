"""The chain on Slurm: one array for each stage of each round, all submitted at once, and then nobody is needed.

A job waits for its predecessors with `afterany` and looks at their manifests when it starts: `afterok` would judge a predecessor that is
preempted and requeued by its first end, and leave this one in the queue for ever. Whether a shard is done is never asked of Slurm.
"""

import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import submitit
import submitit.slurm.slurm

from jobs.cluster import Resources, Slurm
from jobs.plan import Job, plan
from jobs.task import EXIT_REQUEUE, Gate, Task
from serl.rundir import Run, Shard

# The step's exit code decides; srun reports a task killed by signal N as 128 + N. Signals are for python: the shell must outlive it.
SETUP = ("trap : TERM USR2 CONT",)
TEARDOWN = (
    "code=$?",
    "me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; me=${me:-$SLURM_JOB_ID}",
    'if [ -e "{folder}/hold-$me" ]; then scontrol requeuehold "$me"',
    f'elif [ $code -eq {EXIT_REQUEUE} ] || [ $code -gt 128 ]; then scontrol requeue "$me"; fi',
    "exit $code",
)
DEFAULT_MAX_ARRAY = 1001
PREVIEW = "TOKEN"  # in a printed plan, stands for what a submission makes up


class SlurmError(ValueError):
    """Slurm refused, or is not there; the message carries its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One sbatch: written down before it is made (`id` None) and after. `token` is in the job's comment, so that a lost one can be found."""

    token: str
    job: str
    shards: tuple[int, ...]
    id: str | None = None

    def element(self, position: int) -> str:
        """Slurm's name for the job of the shard at `position`; an array of one is submitted as a plain job."""
        return f"{self.id}_{position}" if len(self.shards) > 1 else f"{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A job in the queue: its id (with the array index), state, comment, node list or reason."""

    id: str
    state: str
    comment: str
    where: str


class Journal:
    """`slurm.jsonl`: intents and submissions of a run, the latest word on each token."""

    def __init__(self, root: Path):
        self._path = root / "slurm.jsonl"

    def __bool__(self) -> bool:
        return self._path.exists()

    def submissions(self) -> list[Submission]:
        latest: dict[str, Submission] = {}
        for line in self._path.read_text().splitlines() if self else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # torn by a crash: the intent before it, or the comment in the queue, still tells
                continue
            latest[row["token"]] = Submission(**row | {"shards": tuple(row["shards"])})
        return list(latest.values())

    def add(self, submission: Submission) -> None:
        with open(self._path, "ab+") as f:
            if f.tell() and (f.seek(-1, os.SEEK_END), f.read())[1] != b"\n":
                f.write(b"\n")
            f.write(json.dumps(asdict(submission)).encode() + b"\n")
            f.flush()
            os.fsync(f.fileno())


def submit_missing(run: Run, cluster: Slurm) -> list[Submission]:
    """Submit what is neither done nor in the queue; returns the new submissions."""
    journal = Journal(run.root)
    queue = {q.id: q for q in look_at_queue()}
    _cancel_useless(journal, queue)
    covered, ids = _still_queued(journal, queue)
    limit = max_array_size()
    new: list[Submission] = []
    for job in plan(run.config, run.done):
        shards = [s for s in job.missing if (job.name, s.index) not in covered]
        for start in range(0, len(shards), limit):
            part = shards[start : start + limit]
            after = tuple(id for name in job.after for id in ids.get(name, ()))
            submission = _submit(run, cluster, journal, job, part, after)
            ids.setdefault(job.name, []).append(submission.id or "")
            new.append(submission)
    return new


def _still_queued(journal: Journal, queue: dict[str, Queued]) -> tuple[set[tuple[str, int]], dict[str, list[str]]]:
    """The (job name, shard index) pairs that a job in the queue will do, and the ids of those jobs by job name."""
    covered: set[tuple[str, int]] = set()
    ids: dict[str, list[str]] = {}
    for s in journal.submissions():
        waiting = {(s.job, index) for position, index in enumerate(s.shards) if s.element(position) in queue}
        covered |= waiting
        if waiting and s.id:
            ids.setdefault(s.job, []).append(s.id)
    return covered, ids


def _submit(run: Run, cluster: Slurm, journal: Journal, job: Job, shards: Sequence[Shard], after: tuple[str, ...]) -> Submission:
    token = uuid.uuid4().hex[:12]
    intent = Submission(token=token, job=job.name, shards=tuple(s.index for s in shards))
    journal.add(intent)
    executor = _executor(run, cluster, job, token, after)
    folder = str(executor.folder)
    own = cluster.resources(job.stage)
    gate = Gate(stages=tuple((int(name[1:4]), name.partition("-")[2]) for name in job.after), ids=after)
    tasks = [
        Task(root=str(run.root), shard=s, submission=0, device=own.device, cores=own.cpus_per_task, folder=folder, launcher=None, gate=gate,
             max_attempts=cluster.max_attempts)
        for s in shards
    ]  # fmt: skip
    try:
        first = executor.submit_array(tasks)[0]
    except (submitit.core.utils.FailedJobError, OSError) as e:
        raise SlurmError(f"{job.name}: sbatch refused: {e}; what was submitted stays, `python -m jobs.resume {run.root.name}` submits the rest") from e
    done = Submission(token=token, job=job.name, shards=intent.shards, id=first.job_id.partition("_")[0])
    journal.add(done)
    return done


def _executor(run: Run, cluster: Slurm, job: Job, token: str, after: Sequence[str]) -> submitit.SlurmExecutor:
    executor = submitit.SlurmExecutor(folder=log_folder(run.root, job, token), python=cluster.python)
    executor.update_parameters(**sbatch_parameters(run.root, run.digest, cluster, job, token, after))
    return executor


def sbatch_parameters(root: Path, digest: str, cluster: Slurm, job: Job, token: str, after: Sequence[str]) -> dict:
    """What submitit is told; a function of its arguments alone, so that a dry run shows the very text."""
    folder = log_folder(root, job, token)
    own = cluster.resources(job.stage)
    chosen = {k: v for k in ("partition", "account", "qos", "constraint") if (v := getattr(own, k)) is not None}
    comment = json.dumps({"run": root.name, "stage": job.stage, "round": job.round, "plan": digest, "token": token}, separators=(",", ":"))
    cpu = ("export OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu",) if own.device == "cpu" else ()
    return chosen | {
        "job_name": f"serl-{root.name}-{job.name}",
        "comment": comment,
        "time": own.time_min,
        "nodes": own.nodes,
        "ntasks_per_node": own.tasks_per_node,
        "cpus_per_task": own.cpus_per_task,
        "mem": f"{own.mem_gb}GB",
        "array_parallelism": cluster.array_limit,
        "signal_delay_s": cluster.signal_s,
        "stderr_to_stdout": True,
        "setup": [*SETUP, f"export PYTHONPATH={root / 'code'} PYTHONSAFEPATH=1", *cpu, *cluster.setup],
        "teardown": [line.replace("{folder}", str(folder)) for line in TEARDOWN],
        "srun_args": ["--kill-on-bad-exit=1", "--cpu-bind=none"],
        "additional_parameters": {"requeue": True} | _gpus(own) | own.extra,
    } | ({"dependency": "afterany:" + ":".join(after)} if after else {})  # fmt: skip


def sbatch_text(root: Path, digest: str, cluster: Slurm, job: Job) -> str:
    """The very script that submission would hand to sbatch, but for the job ids it will wait for and its token."""
    folder = log_folder(root, job, PREVIEW)
    python = cluster.python or shlex.quote(sys.executable)
    return submitit.slurm.slurm._make_sbatch_string(
        command=f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}",
        folder=folder,
        map_count=len(job.missing) if len(job.missing) > 1 else None,
        **sbatch_parameters(root, digest, cluster, job, PREVIEW, job.after),
    )


def log_folder(root: Path, job: Job, token: str) -> Path:
    return root / "logs" / job.name / token


def _gpus(own: Resources) -> dict[str, int]:
    return {"gpus_per_node": own.gpus_per_node} if own.gpus_per_node else {}


def _cancel_useless(journal: Journal, queue: dict[str, Queued]) -> None:
    """Jobs that wait for nothing: held ones, and those of a launcher that died between sbatch and its record, which have no pickle to run.

    Cancelled and taken out of `queue`; what they were for is submitted anew.
    """
    ours = journal.submissions()
    lost = {s.token for s in ours if s.id is None}
    ids = {s.id for s in ours if s.id}
    useless = [
        q.id
        for q in queue.values()
        if any(token in q.comment for token in lost) or (q.id.partition("_")[0] in ids and q.state == "PENDING" and "Held" in q.where)
    ]
    if useless:
        _slurm(["scancel", *useless])
    for id in useless:
        del queue[id]


def live(run: Run) -> list[Queued]:
    """The jobs of this run that are in the queue: one squeue call."""
    journal = Journal(run.root)
    if not journal:
        return []
    own = {s.id for s in journal.submissions() if s.id}
    return [q for q in look_at_queue() if q.id.partition("_")[0] in own]


def cancel(run: Run) -> int:
    """Cancel the jobs that this run recorded; returns how many were in the queue."""
    ids = sorted({q.id for q in live(run)})
    if ids:
        _slurm(["scancel", *ids])
    return len(ids)


def look_at_queue() -> list[Queued]:
    """This user's queue, arrays element by element."""
    lines = _slurm(["squeue", "--me", "--noheader", "--array", "--format=%i\t%T\t%R\t%k"]).splitlines()
    return list(_parse_queue(lines))


def _parse_queue(lines: Sequence[str]) -> Iterator[Queued]:
    for line in lines:
        id, state, where, comment = line.split("\t", 3)
        yield Queued(id=id.strip(), state=state, where=where, comment=comment)


def max_array_size() -> int:
    for line in _slurm(["scontrol", "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdigit():
            return max(1, int(value) - 1)
    return DEFAULT_MAX_ARRAY


def _slurm(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except FileNotFoundError:
        raise SlurmError(f"{command[0]}: not found; run this on a login node of the cluster, or use --cluster local") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{' '.join(command[:2])}: no answer within 120 s; is slurmctld up?") from None
    except subprocess.CalledProcessError as e:
        raise SlurmError(f"{' '.join(command[:2])}: {e.stderr.strip() or e.stdout.strip()}") from e
