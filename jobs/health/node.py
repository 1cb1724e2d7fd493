"""A compute node of each kind that the stages use, checked by a small job of its own."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.chain.batch import errand_text, sbatch
from jobs.health.canary import from_json
from jobs.health.checks import Check, judged, requests
from jobs.health.machine_checks import check_machine
from jobs.plan.cluster import Resources, Slurm
from jobs.runs.code import ROOT
from jobs.runs.queue import SlurmError

POLL_S = 1.0
JOB_MIN = 15
SHARE_S = 30.0  # for a file written on a node to show on this one
LIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING")


def kinds_of_node(cluster: Slurm) -> list[Resources]:
    """One small request for each kind of node that the stages use: of one GPU where they use any."""
    found: dict[tuple, Resources] = {}
    for _, own in requests(cluster):
        few = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": min(1, own.gpus_per_node)}
        small = own.model_copy(update=few | {"time_min": min(JOB_MIN, own.time_min)})
        found.setdefault((own.partition, own.constraint, small.gpus_per_node), small)
    return list(found.values())


def job_script(cluster: Slurm, asked: Resources, folder: Path, data: Path, modules: Sequence[str]) -> str:
    """The text for sbatch: the same setup and interpreter as a stage's job."""
    options = {"job_name": "serl-doctor", "output": str(folder / "log")}
    told = shlex.join([str(data), str(folder / "facts.json"), *modules])
    python = cluster.python or shlex.quote(sys.executable)
    command = f"srun --export=ALL {python} -m jobs.health.canary {told}"
    return errand_text(ROOT, cluster, asked, options, command)


def check_node(
    cluster: Slurm, asked: Resources, data: Path, modules: Sequence[str], wait_s: int
) -> Iterator[Check]:
    """Submit, wait, judge; the job is cancelled and the folder removed whatever happens."""
    subject = f"job in {asked.partition or 'the default partition'}"
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=data))
    script, answer, job = folder / "script", folder / "facts.json", None
    try:
        script.write_text(job_script(cluster, asked, folder, data, modules))
        job = sbatch(script)
        state = wait_for(job, answer, wait_s)
        if not answer.exists():
            yield _no_answer(subject, job, state, folder / "log")
            return
        facts = from_json(answer.read_text())
        yield judged("data root", f"what {facts.host} writes there is seen here")
        yield from check_machine(facts, asked)
    except SlurmError as e:
        yield Check("problem", subject, str(e), "mend what sbatch names in the cluster file")
    finally:
        if job:
            subprocess.run(["scancel", job], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(job: str, answer: Path, wait_s: int) -> str:
    """Until there is an answer, or no job for a while, or no time left; returns the job's last state."""
    look = ["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T %r"]
    deadline, state = time.monotonic() + wait_s, ""
    while not answer.exists() and time.monotonic() < deadline:
        now = subprocess.run(look, capture_output=True, text=True, check=False).stdout.strip()
        state = now or state
        if not now.startswith(LIVE):
            patience = SHARE_S if now.startswith("COMPLETED") else 2 * POLL_S
            deadline = min(deadline, time.monotonic() + patience)
        time.sleep(POLL_S)
        os.listdir(answer.parent)  # NFS then looks again at what is there
    return state


def _no_answer(subject: str, job: str, state: str, log: Path) -> Check:
    if state.startswith("PENDING"):
        remedy = "try again with a longer --wait, or when the queue is shorter"
        return Check("warning", subject, f"{job} has not started: {state}", remedy)
    last = "and no log: nodes may not see the data root"
    if log.exists():
        last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    found = f"{job} ended without an answer: {state or 'gone'}: {last}"
    return Check("problem", subject, found, "mend `setup`, `python` or `data` in the cluster file")
