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
from jobs.chain.gate import Gate
from jobs.chain.task import Task
from jobs.chain.window import WindowFull, full
from jobs.plan.chain import Job
from jobs.plan.cluster import Slurm
from jobs.plan.memory import share_on_node
from jobs.runs.queue import Journal, SlurmError, Submission
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
    own = cluster.resources(job.of)
    journal = Journal(run.home(job.round, job.stage))  # with the stage if that is shared
    intent = Submission(
        token=uuid.uuid4().hex[:12],
        job=job.name,
        shards=tuple(s.index for s in shards),
        array=len(shards) > 1,
        run=run.root.name,
        spare=spare is not None,
    )
    journal.add(intent)
    executor = _Executor(folder=log_folder(run.root, job, intent.token), python=cluster.python)
    folder, gate = str(executor.folder), Gate(stages=tuple(map(stage_of, job.after)))
    share = share_on_node(job.of, run.config, own, run.data_root)
    tasks = [
        Task(
            root=str(run.root), shard=s, submission=0, device=own.device, cores=own.cpus_per_task,
            folder=folder, launcher=None, gate=gate, max_attempts=cluster.max_attempts,
            hang_s=cluster.hang_s, gpus=own.nodes * own.gpus_per_node, hold=hold,
            cache_gib=share.cache_gib if share else None,
        )
        for s in shards
    ]  # fmt: skip
    asked = sbatch_parameters(run.root, run.digest, cluster, job, intent.token, after)
    more = asked["additional_parameters"]
    more |= spare or {}
    if hung := excluded(run.root / "suspects"):
        more["exclude"] = ",".join([*([str(more["exclude"])] if "exclude" in more else []), *hung])
    executor.update_parameters(**asked)
    try:
        with by_the_script(), contextlib.redirect_stderr(io.StringIO()):  # a refusal is told once, by us
            first = executor.submit_array(tasks)[0]
    except (submitit.core.utils.FailedJobError, OSError) as e:
        shutil.rmtree(folder, ignore_errors=True)
        if full(str(e)):
            raise WindowFull(f"{job.name}: sbatch refused: {e}") from e
        raise _refused(run, job, e, hung) from e
    done = replace(intent, id=first.job_id.partition("_")[0])
    journal.add(done)
    return done


def _refused(run: Run, job: Job, e: Exception, hung: Sequence[str]) -> SlurmError:
    suspects = run.root / "suspects"
    without = f"asked without {', '.join(hung)}, where it hung; remove {suspects} to use them again"
    return SlurmError(
        f"{job.name}: sbatch refused: {e}{f' ({without})' if hung else ''}; what was submitted stays, "
        f"`python -m jobs.resume {run.root.name}` submits the rest"
    )


class _Executor(submitit.SlurmExecutor):
    """Whose jobs hold their signals from the start."""

    @property
    def _submitit_command_str(self) -> str:
        return command_of_task(self.python, self.folder)
