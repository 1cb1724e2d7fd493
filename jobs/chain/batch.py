"""Batch scripts: the text of a stage's job, what every script of ours says around its command, and what a job
must forget before it submits others.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import submitit.slurm.slurm

from jobs.plan.chain import Job
from jobs.plan.cluster import Resources, Slurm
from jobs.runs.queue import EXIT_REQUEUE, SlurmError, ask_slurm

SPECIAL = {"%", "\\"}
WHERE = ("partition", "account", "qos", "constraint")
PREVIEW = "TOKEN"  # in a printed plan, stands for what a submission makes up

# Signals are for python: the shell must outlive it. Slurm is asked as everybody asks it, not as this user
# likes it. The last element of an array has the id of the whole array, so an element is asked for by its
# index. SERL_SHELL knows the environment of before the set-up lines.
SETUP = (
    "trap : TERM USR2 CONT",
    "unset ${!SQUEUE_@} SLURM_TIME_FORMAT",
    "me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; me=${me:-$SLURM_JOB_ID}",
    "export SERL_SHELL=$$",
)
# After a site's lines, which may have said where squeue is, or that the shell is to give up at the first
# error: it must not, from here on. Only newer versions of Slurm say by themselves when the time is over.
SETTLED = (
    "set +e",
    "end=${SLURM_JOB_END_TIME:+@$SLURM_JOB_END_TIME}; end=${end:-$(squeue --noheader --jobs=$me "
    "--format=%e)}",
    'export SLURM_JOB_END_TIME=$(date --date="${end:-unknown}" +%s 2> /dev/null)',
)
# The step's exit code decides; srun reports a task killed by signal N as 128 + N. A job that is completing
# while this shell still runs was cancelled or requeued already: to requeue it would raise it from the dead.
# One that is at work elsewhere has left this node behind, cut off as it was. Any other state (RUNNING,
# SIGNALING ...) is ours to requeue. The controller may be away for a while. What the next attempt waits for
# or does without Slurm takes only from a job that is pending: hence right after, while KillWait lets us live.
TEARDOWN = (
    "code=$? how=",
    f"if [ $code -eq {EXIT_REQUEUE} ] || [ $code -gt 128 ]; then how=requeue; fi",
    "if [ -e {folder}/wish-$me ]; then how=$(cat {folder}/wish-$me); fi",
    "for pause in 1 2 4 8 16 32 64 128; do",
    '    [ -n "$how" ] || break',
    "    where=$(squeue --noheader --jobs=$me --format=%B@%T) && case $where in",
    "        $SLURMD_NODENAME@COMPLETING) break ;;",
    "        $SLURMD_NODENAME@*)",
    "            if scontrol $how $me; then",
    "                {then}",
    "                break",
    "            fi ;;",
    "        *) break ;;",
    "    esac",
    "    sleep $pause",
    "done",
)
# What an attempt wished for is not what the next one does, however soon that one ends.
FORGET = "rm -f {folder}/wish-$me"
EXCLUDE = "[ ! -s {folder}/exclude-$me ] || scontrol update JobId=$me ExcNodeList=$(cat {folder}/exclude-$me)"
OURS = ("SLURM_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_", "SERL_SHELL")
GOES_OVER = "SBATCH_"  # what sbatch takes from the environment goes over what a script says


def directives(options: Mapping[str, str | int | bool | None]) -> list[str]:
    """Lines for sbatch; an option that is True has no value, one that is None or False is not there."""
    asked = sorted((k.replace("_", "-"), v) for k, v in options.items() if v is not None and v is not False)
    return [f"#SBATCH --{k}" if v is True else f"#SBATCH --{k}={shlex.quote(str(v))}" for k, v in asked]


def setup(code: Path, cluster: Slurm, *first: str) -> list[str]:
    """What a script says before its command."""
    return [
        *SETUP,
        f"export PYTHONPATH={shlex.quote(python_path(code))} PYTHONSAFEPATH=1",
        *first,
        *cluster.setup,
        *SETTLED,
    ]


def python_path(code: Path) -> str:
    """What PYTHONPATH is to be for a process that starts in the folder of the code; a colon in its name would
    make two of it.
    """
    return "." if ":" in str(code) else str(code)


def teardown(folder: Path, *, then: str = EXCLUDE) -> list[str]:
    """`then` is done to the job once it is requeued."""
    return [line.replace("{then}", then).replace("{folder}", shlex.quote(str(folder))) for line in TEARDOWN]


def errand_text(
    code: Path,
    cluster: Slurm,
    own: Resources,
    options: Mapping[str, str | int | bool | None],
    command: str,
    *ending: str,
) -> str:
    """The script of a small job of our own, which is set up as those of stages are."""
    asked = {"chdir": str(code), "nodes": 1, "ntasks": 1, "time": own.time_min}
    asked |= {k: getattr(own, k) for k in ("cpus_per_task", *WHERE)} | gpus(own) | memory(own)
    flags = directives({**asked, **options, **own.extra})
    return "\n".join(["#!/bin/bash", *flags, "", *setup(code, cluster), "", command, "", *ending, ""])


def sbatch(script: Path, *options: str) -> str:
    """The id of the job that this script becomes."""
    with by_the_script():
        return ask_slurm(["sbatch", "--parsable", *options, str(script)]).strip().partition(";")[0]


def comment(**told: str | int) -> str:
    """How a job in the queue is known for ours."""
    return json.dumps(told, separators=(",", ":"))


@contextmanager
def by_the_script() -> Iterator[None]:
    """What is submitted here is as its script says, wherever this runs: SBATCH_PARTITION and the like would
    go over it, and from inside a job it would inherit that job's settings and what its set-up lines exported.
    """
    inside = dict(os.environ)
    ours = without_job(_before_setup(inside)) if "SLURM_JOB_ID" in inside else inside
    _become({k: v for k, v in ours.items() if not k.startswith(GOES_OVER)})
    try:
        yield
    finally:
        _become(inside)


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k == "SLURM_CONF" or not k.startswith(OURS)}


def _before_setup(inside: Mapping[str, str]) -> Mapping[str, str]:
    """What Slurm gave to the batch script; known on that script's node alone."""
    try:
        given = Path(f"/proc/{inside['SERL_SHELL']}/environ").read_bytes().decode(errors="surrogateescape")
    except (KeyError, OSError):
        return inside
    found = dict(entry.split("=", 1) for entry in given.split("\0") if "=" in entry)
    return found if found.get("SLURM_JOB_ID") == inside["SLURM_JOB_ID"] else inside


def _become(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def sbatch_parameters(
    root: Path, digest: str, cluster: Slurm, job: Job, token: str, after: Sequence[str]
) -> dict:
    """What submitit is told; a function of its arguments alone, so that a dry run shows the very text."""
    folder = log_folder(root, job, token)
    if special := sorted(SPECIAL & set(str(folder))):
        raise SlurmError(
            f"{root}: Slurm reads {' and '.join(special)} in the name of a log as its own; choose a data "
            "root without"
        )
    own = cluster.resources(job.of)
    # submitit would write --exclusive=False
    given = {k.replace("-", "_"): v for k, v in own.extra.items() if v is not False}
    first = [FORGET.format(folder=shlex.quote(str(folder)))]
    if own.device == "cpu":
        first.append("export OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu")
    return (
        {k: v for k in WHERE if (v := getattr(own, k)) is not None}
        | memory(own)
        | {
            "job_name": f"serl-{root.name}-{job.name}",
            "comment": comment(run=root.name, stage=job.stage, round=job.round, plan=digest, token=token),
            "time": own.time_min,
            "nodes": own.nodes,
            "ntasks_per_node": own.tasks_per_node,
            "cpus_per_task": own.cpus_per_task,
            "array_parallelism": cluster.array_limit,
            "signal_delay_s": cluster.signal_s,
            "stderr_to_stdout": True,
            "setup": setup(root / "code", cluster, *first),
            "teardown": [*teardown(folder), *_spare_lines(root, cluster, job), "exit $code"],
            "srun_args": ["--export=ALL", "--kill-on-bad-exit=1", "--cpu-bind=none"],
            "additional_parameters": {"requeue": True, "chdir": str(root / "code")} | gpus(own) | given,
        }
        | ({"dependency": "afterany:" + ":".join(after)} if after else {})
    )


def _spare_lines(root: Path, cluster: Slurm, job: Job) -> list[str]:
    """A job that has done its shard looks after its siblings, where a site wants that."""
    if cluster.stragglers is None or job.num_shards == 1:
        return []
    python = cluster.python or shlex.quote(sys.executable)
    return [f"[ $code -ne 0 ] || {python} -m jobs.chain.spares {shlex.quote(str(root))} {job.name} || :"]


def sbatch_text(root: Path, digest: str, cluster: Slurm, job: Job) -> str:
    """What submission would hand to sbatch, but for its token and the ids that it will wait for."""
    folder = log_folder(root, job, PREVIEW)
    python = cluster.python or shlex.quote(sys.executable)
    return submitit.slurm.slurm._make_sbatch_string(
        command=command_of_task(python, folder),
        folder=folder,
        map_count=len(job.missing) if len(job.missing) > 1 else None,
        **sbatch_parameters(root, digest, cluster, job, PREVIEW, job.after),
    )


def log_folder(root: Path, job: Job, token: str) -> Path:
    return root / "logs" / job.name / token


def gpus(own: Resources) -> dict[str, int]:
    """Unless `extra` asks for them in the site's own way: Slurm refuses both at once."""
    told = any(
        key.startswith("gpus") or (key == "gres" and "gpu" in str(value)) for key, value in own.extra.items()
    )
    return {} if told or not own.gpus_per_node else {"gpus_per_node": own.gpus_per_node}


def memory(own: Resources) -> dict[str, str]:
    """Unless a site's own way of asking for memory is among the extra parameters (`mem_per_cpu`,
    `mem_per_gpu`, `mem: 0` for a node's whole, `mem: false` for no word of it): Slurm refuses two at once.
    None at all where `mem_gb` is null.
    """
    told = any(key.replace("-", "_").startswith("mem") for key in own.extra)
    return {} if told or own.mem_gb is None else {"mem": f"{own.mem_gb}GB"}


def command_of_task(python: str, folder: Path) -> str:
    return f"{python} -u -m jobs.chain.start {shlex.quote(str(folder))}"
