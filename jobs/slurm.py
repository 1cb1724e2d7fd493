"""The chain on Slurm: one array for each stage of each round, all submitted at once, and then nobody is needed.

A job waits for its predecessors with `afterany` and looks at their manifests when it starts: `afterok` would judge a predecessor that is
preempted and requeued by its first end, and leave this one in the queue for ever. Whether a shard is done is never asked of Slurm.
"""

import json
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import submitit
import submitit.slurm.slurm

from jobs.cluster import Resources, Slurm
from jobs.plan import Job, plan
from jobs.queue import Journal, Queued, SlurmError, Submission, ask_slurm, at_work, look_at_queue, max_array_size
from jobs.task import EXIT_REQUEUE, Gate, Task, forget_failures
from serl.rundir import Run, Shard
from serl.watchdog import excluded

# Signals are for python: the shell must outlive it. The last element of an array has the id of the whole array, so an element is asked for by
# its index. Only newer versions of Slurm say by themselves when the time is over.
SETUP = (
    "trap : TERM USR2 CONT",
    "me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; me=${me:-$SLURM_JOB_ID}",
    "end=$(squeue --noheader --jobs=$me --format=%e)",
    "export SLURM_JOB_END_TIME=$(date --date=\"${end:-unknown}\" +%s 2> /dev/null)",
)
# The step's exit code decides; srun reports a task killed by signal N as 128 + N. A job that is completing while this shell still runs was
# cancelled or requeued already: to requeue it would raise it from the dead. One that is at work elsewhere has left this node behind, cut off
# as it was. Any other state (RUNNING, SIGNALING ...) is ours to requeue. The controller may be away for a while.
TEARDOWN = (
    "code=$? how=",
    f"if [ $code -eq {EXIT_REQUEUE} ] || [ $code -gt 128 ]; then how=requeue; fi",
    "if [ -e {folder}/wish-$me ]; then how=$(cat {folder}/wish-$me); fi",
    "for pause in 1 2 4 8 16 32 64 128; do",
    "    [ -n \"$how\" ] || break",
    "    where=$(squeue --noheader --jobs=$me --format=%B@%T) && case $where in",
    "        $SLURMD_NODENAME@COMPLETING) break ;;",
    "        $SLURMD_NODENAME@*) scontrol $how $me && break ;;",
    "        *) break ;;",
    "    esac",
    "    sleep $pause",
    "done",
    "[ -z \"$how\" ] || [ ! -s {folder}/exclude-$me ] || scontrol update JobId=$me ExcNodeList=$(cat {folder}/exclude-$me)",
    "exit $code",
)
PREVIEW = "TOKEN"  # in a printed plan, stands for what a submission makes up
SETTLE_S = 60.0


def submit_missing(run: Run, cluster: Slurm) -> list[Submission]:
    """Submit what is neither done nor in the queue; returns the new submissions."""
    journal = Journal(run.root)
    jobs = plan(run.config, run.done)
    recorded = journal.submissions()
    kept, useless = sort_queue(jobs, recorded, _settled_queue(recorded))
    if useless:
        ask_slurm(["scancel", *useless])
    limit = max_array_size()
    ids = {name: {q.id.partition("_")[0] for q in mine.values()} for name, mine in kept.items()}
    new: list[Submission] = []
    for job in jobs:
        shards = [s for s in job.missing if s.index not in kept[job.name]]
        forget_failures(run, shards)
        for start in range(0, len(shards), limit):
            after = sorted(id for name in job.after for id in ids[name])
            submission = _submit(run, cluster, journal, job, shards[start : start + limit], after)
            ids[job.name].add(submission.id or "")
            new.append(submission)
    return new


def sort_queue(jobs: Sequence[Job], recorded: Sequence[Submission], queue: Sequence[Queued]) -> tuple[dict[str, dict[int, Queued]], list[str]]:
    """What of the queue is kept, by job name and shard, and the ids of what is in the way of its own replacement.

    That is: what is held; what a launcher submitted and did not live to record, since it may have no pickle to run; and what waits for
    such a job, or for one that is not in the queue at all, since Slurm would start it too early.
    """
    kept: dict[str, dict[int, Queued]] = {}
    useless: list[str] = []
    renewed: set[str] = set()
    work = at_work(recorded, queue)
    unrecorded = {s.token for s in recorded if s.id is None}
    for job in jobs:
        mine = {s.index: work[job.name, s.index] for s in job.missing if (job.name, s.index) in work}
        good = {} if renewed & set(job.after) else {i: q for i, q in mine.items() if not q.held and q.token not in unrecorded}
        if len(good) < len(job.missing):
            renewed.add(job.name)
        kept[job.name] = good
        useless += [q.id for i, q in mine.items() if i not in good]
    return kept, useless


def _settled_queue(recorded: Sequence[Submission]) -> list[Queued]:
    """Our jobs once none is on its way out of the queue, or back into it: until then nobody can tell which."""
    tokens = {s.token for s in recorded}
    deadline = time.monotonic() + SETTLE_S
    while True:
        ours = [q for q in look_at_queue() if q.token in tokens]
        if all(q.state != "COMPLETING" for q in ours) or time.monotonic() > deadline:
            return [q for q in ours if q.state != "COMPLETING"]
        time.sleep(1)


def _submit(run: Run, cluster: Slurm, journal: Journal, job: Job, shards: Sequence[Shard], after: Sequence[str]) -> Submission:
    token = uuid.uuid4().hex[:12]
    intent = Submission(token=token, job=job.name, shards=tuple(s.index for s in shards))
    journal.add(intent)
    executor = _executor(run, cluster, job, token, after)
    folder = str(executor.folder)
    own = cluster.resources(job.stage)
    gate = Gate(stages=tuple((int(name[1:4]), name.partition("-")[2]) for name in job.after))
    tasks = [
        Task(root=str(run.root), shard=s, submission=0, device=own.device, cores=own.cpus_per_task, folder=folder, launcher=None, gate=gate,
             max_attempts=cluster.max_attempts, hang_s=cluster.hang_s)
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
    parameters = sbatch_parameters(run.root, run.digest, cluster, job, token, after)
    if bad := excluded(run.root / "suspects"):
        own = parameters["additional_parameters"]
        own["exclude"] = ",".join([*([str(own["exclude"])] if "exclude" in own else []), *bad])
    executor.update_parameters(**parameters)
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
        "setup": [*SETUP, f"export PYTHONPATH={shlex.quote(str(root / 'code'))} PYTHONSAFEPATH=1", *cpu, *cluster.setup],
        "teardown": [line.replace("{folder}", shlex.quote(str(folder))) for line in TEARDOWN],
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


def live(run: Run) -> list[Queued]:
    """The jobs of this run that are in the queue, recorded or not: one squeue call."""
    tokens = {s.token for s in Journal(run.root).submissions()}
    return [q for q in look_at_queue() if q.token in tokens] if tokens else []


def cancel(run: Run) -> int:
    """Cancel the jobs of this run, and no others; returns how many were in the queue."""
    jobs = live(run)
    if jobs:
        ask_slurm(["scancel", *sorted({q.id.partition("_")[0] for q in jobs})])
    return len(jobs)
