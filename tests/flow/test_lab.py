"""The throw-away Slurm of slurm/lab, for real: nodes, preemption, crashes, orphans; and the doctor on it.

Skipped where Slurm's packages are not installed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = pytest.mark.skipif(
    any(shutil.which(name, path=SBIN) is None for name in ("slurmctld", "slurmd", "sinfo")),
    reason="needs slurmctld, slurmd and slurm-client",
)
LAB = str(ROOT / "slurm" / "lab")
WAITING = """#!/bin/bash
#SBATCH --requeue --open-mode=append --signal=USR2@60 --time=10
srun --overlap bash -c 'trap "echo USR2 >> signals" USR2; echo $$ >> pids; while :; do sleep 0.1; done'
"""


class Lab:
    """One lab and its environment, with a data root beside it."""

    def __init__(self, folder: Path):
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))} | {
            "SERL_LAB": str(folder / "lab")
        }

    def lab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LAB, *arguments],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start(self, *arguments: str) -> float:
        """Seconds it took; from here on commands run in the lab's environment."""
        begin = time.monotonic()
        started = self.lab("start", *arguments)
        seconds = time.monotonic() - begin
        assert started.returncode == 0, started.stderr
        exported = subprocess.run(
            ["bash", "-c", f'eval "$({LAB} env)"; env'],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        self.env |= dict(
            line.split("=", 1) for line in exported.splitlines() if line.startswith(("SLURM_CONF=", "PATH="))
        )
        return seconds

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command,
            env=self.env,
            cwd=cwd or self.data,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, text: str, folder: Path, *options: str) -> str:
        (folder / "script").write_text(text)
        return self.run("sbatch", "--parsable", *options, "script", cwd=folder)

    def state(self, job: str) -> str:
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("one"))
    print(f"a lab of 4 nodes started in {lab.start():.2f} s")
    yield lab
    assert lab.lab("stop").returncode == 0
    assert processes_of(lab) == []


def processes_of(lab: Lab) -> list[str]:
    """The living processes that carry a lab's mark."""
    mark = f"SERL_LAB={lab.env['SERL_LAB']}".encode()
    return [p.parent.name for p in Path("/proc").glob("[0-9]*/environ") if mark in readable(p).split(b"\0")]


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is not ours
        return b""


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def alive(pids: list[str]) -> list[str]:
    return [p for p in pids if readable(Path(f"/proc/{p}/environ"))]


def test_nodes_are_four_and_jobs_span_them(lab):
    assert len(set(lab.run("srun", "-N4", "bash", "-c", "echo $SLURMD_NODENAME").split())) == 4
    assert lab.run("sinfo", "--noheader", "--format=%R %D").split("\n") == ["main 4", "low 4", "high 4"]


def test_gpus_are_numbers_that_slurm_hands_out(lab):
    assert lab.run("srun", "--gpus-per-node=2", "bash", "-c", "echo $CUDA_VISIBLE_DEVICES") == "0,1"


def test_a_preempted_job_hears_usr2_and_is_requeued(lab, tmp_path):
    job = lab.submit(WAITING, tmp_path, "--partition=low", "--nodes=2")
    until(lambda: len(lines(tmp_path / "pids")) == 2)
    high = subprocess.Popen(
        ["srun", "--partition=high", "-N4", "--exclusive", "true"], env=lab.env, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: lines(tmp_path / "signals") == ["USR2", "USR2"])
        lab.run("scontrol", "requeue", job)
        until(lambda: lab.state(job) == "PENDING")
        assert high.wait(60) == 0
    finally:
        high.kill()
        lab.run("scancel", job)


def test_a_crashed_node_takes_its_processes_along_and_its_job_back_to_the_queue(lab, tmp_path):
    job = lab.submit(WAITING, tmp_path, "--nodes=2")
    until(lambda: len(lines(tmp_path / "pids")) == 2)
    first = lab.run("squeue", "--noheader", f"--jobs={job}", "--format=%B")
    number = lab.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N").split().index(first)
    assert lab.lab("crash-node", str(number)).returncode == 0
    assert len(alive(lines(tmp_path / "pids"))) <= 1
    until(lambda: lab.state(job) == "PENDING")
    lab.run("scancel", job)
    assert lab.lab("start-node", str(number)).returncode == 0
    until(lambda: "4" in lab.run("sinfo", "--noheader", "--partition=main", "--states=idle", "--format=%D"))


def test_a_restarted_controller_knows_its_jobs(lab, tmp_path):
    job = lab.submit(WAITING, tmp_path)
    until(lambda: len(lines(tmp_path / "pids")) == 1)
    time.sleep(6)  # what a controller learned in its last seconds may be lost with it
    assert lab.lab("restart-controller").returncode == 0
    assert lab.state(job) == "RUNNING"
    assert job in lab.run("sacct", "--parsable2", "-n", "-j", job, "-o", "JobID,State")
    told = lab.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State,End")
    assert told.split() == [f"{job}|RUNNING|Unknown"], (
        "not when its time limit would end it: that would count as used"
    )
    lab.run("scancel", job)


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Another lab, not yet started; stopped whatever happens."""
    other = Lab(tmp_path_factory.mktemp("two"))
    yield other
    other.lab("stop")


def test_two_labs_live_side_by_side_and_stop_ends_orphans(lab, other, tmp_path):
    other.start("--nodes", "1", "--gpus", "0", "--set", "MaxArraySize=11")
    assert "MaxArraySize            = 11" in other.run("scontrol", "show", "config")
    other.submit(WAITING, tmp_path)
    until(lambda: len(lines(tmp_path / "pids")) == 1)
    assert other.lab("kill-node", "0").returncode == 0
    assert alive(lines(tmp_path / "pids")), "without its slurmd a step lives on"
    assert other.lab("stop").returncode == 0
    until(lambda: not alive(lines(tmp_path / "pids")) and not processes_of(other), 5)
    assert lab.run("sinfo", "--noheader", "--partition=main", "--format=%D") == "4", (
        "the other lab is untouched"
    )
    refused = other.lab(
        "start", "--port", lab.run("bash", "-c", "grep -oP 'SlurmctldPort=\\K.*' $SLURM_CONF")
    )
    assert "taken" in refused.stderr and refused.returncode == 1


def test_the_doctor_finds_no_problem_in_the_lab(lab, tmp_path):
    command = (
        sys.executable,
        "-m",
        "jobs.doctor",
        "--cluster",
        "lab",
        "--data",
        str(lab.data),
        "--job",
        "--no-imports",
    )
    said = lab.run(*command, cwd=ROOT)
    assert said.endswith(" 0 problems"), said
    assert "is seen here" in said and "end of the job's time: in" in said and "/job-" in said
    assert list(lab.data.glob(".doctor*")) == []


def test_the_doctor_tells_of_a_node_that_cannot_start_python(lab, tmp_path):
    broken = (ROOT / "configs/clusters/lab.yaml").read_text() + "python: /no/such/python\n"
    (tmp_path / "broken.yaml").write_text(broken)
    command = [
        sys.executable,
        "-m",
        "jobs.doctor",
        "--cluster",
        str(tmp_path / "broken.yaml"),
        "--data",
        str(lab.data),
        "--job",
    ]
    done = subprocess.run(
        command, env=lab.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (
        done.returncode == 1 and "/no/such/python" in done.stdout and "mend `setup`, `python`" in done.stdout
    )


def test_the_doctor_tells_what_slurm_would_refuse_and_submits_nothing(lab, tmp_path):
    large = (ROOT / "configs/clusters/lab.yaml").read_text() + "constraint: h200\n"
    (tmp_path / "large.yaml").write_text(large)
    command = [sys.executable, "-m", "jobs.doctor", "--cluster", str(tmp_path / "large.yaml"), "--data", str(lab.data)]
    done = subprocess.run(command, env=lab.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "Invalid feature specification" in done.stdout and "sinfo" in done.stdout
    assert lab.run("squeue", "--noheader") == ""


def test_a_mistake_is_one_sentence(lab):
    assert "choose" not in lab.lab("status").stderr
    for arguments, words in ((("crash-node", "7"), "from 0 to 3"), (("crash-node",), "from 0 to 3")):
        said = lab.lab(*arguments)
        assert said.returncode == 1 and words in said.stderr and said.stderr.count("\n") == 1
    deep = Lab(lab.data / ("deep" * 20))
    assert "letters with SERL_LAB" in deep.lab("start").stderr
    elsewhere = Lab(lab.data / "empty")
    assert "start one with slurm/lab start" in elsewhere.lab("status").stderr
    for arguments, words in (
        (("--nodes", "many"), "give a number"),
        (("--frob",), "no such option"),
        (("--set", "x"), "a line of slurm.conf"),
    ):
        assert words in elsewhere.lab("start", *arguments).stderr
    if shutil.which("slurmdbd", path=SBIN) is None:
        assert "apt-get install --no-install-recommends" in elsewhere.lab("start", "--full").stderr


@pytest.mark.skipif(
    any(shutil.which(n, path=SBIN) is None for n in ("slurmdbd", "munged", "mariadbd")),
    reason="needs slurmdbd, munge and mariadb-server-core",
)
def test_a_full_lab_remembers_every_attempt(other, tmp_path):
    other.start("--full", "--nodes", "1")
    job = other.submit(WAITING, tmp_path)
    until(lambda: len(lines(tmp_path / "pids")) == 1)
    other.run("scontrol", "requeue", job)
    until(lambda: other.run("sacct", "-XDn", "-j", job, "-o", "State%-20").split()[:1] == ["REQUEUED"])
