"""One sbatch for some shards of a stage, written down before it is made and after: a launcher that dies in
between loses and doubles nothing.
"""

import contextlib
import io
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

import submitit

from jobs.chain.batch import by_the_script, command_of_task, log_folder, sbatch_parameters
from jobs.chain.queue import Journal, SlurmError, Submission
from jobs.chain.task import Gate, Task
from jobs.chain.window import WindowFull, full
from jobs.plan.chain import Job
from jobs.plan.cluster import Slurm
from serl.run.rundir import Run, Shard
from serl.run.watchdog import excluded
from serl.stages.kind import stage_of

SPARE_NICE = 1000


def submit_spare(run: Run, cluster: Slurm, job: Job, shard: Shard, in_s: int) -> Submission:
    """A second job for a shard, behind all others in the queue, and not before `in_s` seconds from now."""
    return submit_shards(
        run, cluster, job, [shard], [], hold=False, spare={"nice": SPARE_NICE, "begin": f"now+{in_s}"}
    )


def submit_shards(
    run: Run,
    cluster: Slurm,
    job: Job,
    shards: Sequence[Shard],
    after: Sequence[str],
    *,
    hold: bool,
    spare: Mapping[str, str | int] | None = None,
) -> Submission:
    token = uuid.uuid4().hex[:12]
    journal = journal_of(run, job.name)
    intent = Submission(
        token=token,
        job=job.name,
        shards=tuple(s.index for s in shards),
        array=len(shards) > 1,
        run=run.root.name,
    )
    intent = replace(intent, spare=spare is not None)
    journal.add(intent)
    hung = excluded(run.root / "suspects")
    executor = _executor(run, cluster, job, token, after, spare or {}, hung)
    folder = str(executor.folder)
    own = cluster.resources(job.of)
    gate = Gate(stages=tuple(map(stage_of, job.after)))
    tasks = [
        Task(
            root=str(run.root), shard=s, submission=0, device=own.device, cores=own.cpus_per_task,
            folder=folder, launcher=None, gate=gate, max_attempts=cluster.max_attempts,
            hang_s=cluster.hang_s, gpus=own.nodes * own.gpus_per_node, hold=hold,
        )
        for s in shards
    ]  # fmt: skip
    try:
        with by_the_script(), contextlib.redirect_stderr(io.StringIO()):  # a refusal is told once, by us
            first = executor.submit_array(tasks)[0]
    except (submitit.core.utils.FailedJobError, OSError) as e:
        shutil.rmtree(folder, ignore_errors=True)
        if full(str(e)):
            raise WindowFull(f"{job.name}: sbatch refused: {e}") from e
        without = (
            f" (asked without {', '.join(hung)}, where it hung; remove {run.root / 'suspects'} to use them "
            "again)"
            if hung
            else ""
        )
        raise SlurmError(
            f"{job.name}: sbatch refused: {e}{without}; what was submitted stays, `python -m jobs.resume "
            f"{run.root.name}` submits the rest"
        ) from e
    done = replace(intent, id=first.job_id.partition("_")[0])
    journal.add(done)
    return done


class _Executor(submitit.SlurmExecutor):
    """Whose jobs hold their signals from the start."""

    @property
    def _submitit_command_str(self) -> str:
        return command_of_task(self.python, self.folder)


def _executor(
    run: Run,
    cluster: Slurm,
    job: Job,
    token: str,
    after: Sequence[str],
    more: Mapping[str, str | int],
    without: Sequence[str],
) -> submitit.SlurmExecutor:
    executor = _Executor(folder=log_folder(run.root, job, token), python=cluster.python)
    parameters = sbatch_parameters(run.root, run.digest, cluster, job, token, after)
    own = parameters["additional_parameters"]
    own |= more
    if without:
        own["exclude"] = ",".join([*([str(own["exclude"])] if "exclude" in own else []), *without])
    executor.update_parameters(**parameters)
    return executor


def journal_of(run: Run, job: str) -> Journal:
    """Where the submissions of a job are written down: with the run, or with the stage if it is shared."""
    return Journal(run.home(*stage_of(job)))
