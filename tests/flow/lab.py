"""A real Slurm for tests (`slurm/lab`), runs on it whose engines are quick stand-ins, and the accidents that happen to them."""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from deterministic import CONFIG, all_shards, content, new_root

from jobs.chain.cancel import live
from jobs.chain.slurm import submit_missing
from jobs.plan.cluster import load_cluster
from jobs.runs.code import freeze_code
from jobs.runs.queue import Journal, Queued, at_work
from serl.records import to_jsonl
from serl.run.rundir import Run
from tests.conftest import run_config

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
MISSING = [
    p
    for p in ("slurmctld", "slurmd", "sbatch")
    if shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None
]
PATIENCE_S = 240

SCORE = {"shards": 2, "benchmarks": ["arithmetic"], "max_tokens": 60, "part_prompts": 4}

# The deterministic run, with parts enough for an accident to hit every phase.
STAND_IN = CONFIG | {
    "propose": CONFIG["propose"] | {"shards": 2, "prompts": 16},
    "curate": {"max_instructions": 20},
    "respond": CONFIG["respond"] | {"shards": 2, "part_prompts": 3},
}
CLUSTER = {
    "kind": "slurm", "partition": "low", "time_min": 10, "signal_s": 15, "cpus_per_task": 1, "gpus_per_node": 0, "mem_gb": 1,
    "stages": {"train": {"nodes": 2}},
}  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """A throw-away Slurm of four nodes."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [ROOT / "slurm/lab", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"slurm/lab {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout


def start_lab(folder: Path, *options: str) -> Lab:
    """Start it, and make this process its user."""
    if MISSING:
        pytest.skip(
            f"no Slurm here: {', '.join(MISSING)} not found; on Debian: apt-get install slurmctld slurmd slurm-client"
        )
    lab = Lab(folder, os.environ | {"SERL_LAB": str(folder)})
    lab("start", *options)
    settings = subprocess.run(
        ["bash", "-c", f"{lab('env')}\nenv -0"],
        env=lab.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    os.environ.update(
        line.split("=", 1)
        for line in settings.split("\0")
        if line.startswith(("SLURM_CONF=", "SERL_LAB=", "PATH="))
    )
    return lab


@contextmanager
def running_lab(folder: Path, *options: str) -> Iterator[Lab]:
    """A lab for as long as the block lasts; afterwards this process is nobody's user again."""
    before = dict(os.environ)
    lab = start_lab(folder, *options)
    try:
        yield lab
    finally:
        lab("stop")
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Trial:
    """A run on the lab."""

    run: Run
    cluster_file: Path
    calls: Path

    def submit(self) -> int:
        return len(submit_missing(self.run, load_cluster(str(self.cluster_file))))

    def queue(self, state: str | None = None) -> list[Queued]:
        return [q for q in live(self.run) if state in (None, q.state)]

    def running(self, stage: str) -> list[Queued]:
        work = at_work(Journal(self.run.root).submissions(), self.queue("RUNNING"))
        return [q for (job, _), q in sorted(work.items()) if job.endswith(stage)]

    def wait_for(self, stage: str, what: str = "") -> Queued:
        """The first job of the stage that runs, once it has noted `what` (a call or a step)."""

        def running() -> bool:
            assert self.queue(), f"the queue is empty while a test waits for {stage}: {self.explain()}"
            return bool(self.running(stage))

        wait_until(running, f"{stage} to run", self.explain)
        found, before = self.running(stage)[0], self.noted(what)
        wait_until(lambda: not what or self.noted(what) != before, f"{stage} to note {what}", self.explain)
        return found

    def done(self) -> bool:
        return all(self.run.done(s) for s in all_shards(self.run))

    def finish(self) -> dict[str, list[str]]:
        """Wait for the end; the digests of all data, checked against the files."""
        wait_until(lambda: not self.queue(), f"{self.run.root.name} to leave the queue", self.explain)
        assert self.done(), self.explain()
        return content(self.run)

    def explain(self) -> str:
        logs = sorted(self.run.root.glob("logs/*/*/*.out"), key=lambda p: p.stat().st_mtime)[-3:]
        tails = "\n".join(f"{p}:\n{p.read_text(errors='replace')[-1500:]}" for p in logs)
        return f"queue {self.queue()}\nnot done {[str(s) for s in all_shards(self.run) if not self.run.done(s)]}\n{tails}"

    def tasks(self, stage: str = "", program: str = "python") -> list[psutil.Process]:
        """The processes of all its ranks, or what started them."""
        found = []
        for p in psutil.process_iter():
            try:
                command = p.cmdline()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if (
                "jobs.chain.start" in command
                and f"{self.run.root}/logs/" in command[-1]
                and stage in command[-1]
                and program in command[0]
            ):
                found.append(p)
        return found

    def noted(self, what: str) -> Counter[str]:
        """How often each call was noted."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return Counter(line.split()[1] for line in lines if line.startswith(what + " "))


def new_trial(
    folder: Path, *, config: dict | None = None, cluster: dict | None = None, setup: tuple[str, ...] = ()
) -> Trial:
    """A run like one that `jobs.launch` made, but for two files in its copy of the code."""
    root = new_root(folder)
    for name, text in (
        ("config.json", '{"model_type": "none"}'),
        ("tokenizer.json", "{}"),
        ("model.safetensors", "\x02" + "\0" * 7 + "{}"),
    ):
        (folder / "models/base" / name).write_text(text)  # enough for preflight; nobody loads it
    (folder / "benchmarks").mkdir(exist_ok=True)
    problems = [
        {"id": str(i), "question": f"What is {i} plus {i}?", "answer": str(2 * i), "kind": "sum"}
        for i in range(16)
    ]
    (folder / "benchmarks/arithmetic.jsonl").write_bytes(to_jsonl(problems))
    run = Run.create(root, run_config(STAND_IN | (config or {})), "test")
    freeze_code(root / "code")
    shutil.copy(HERE / "deterministic.py", root / "code")
    shutil.copy(HERE / "stand_in/generator.py", root / "code/serl/engines/generator.py")
    shutil.copy(HERE / "stand_in/train.py", root / "code/serl/stages/train/run.py")
    calls, file = folder / "calls.txt", folder / "cluster.yaml"
    lines = [f"export SERL_TEST_CALLS={calls} PYTHONDONTWRITEBYTECODE=", *setup]
    file.write_text(yaml.safe_dump(CLUSTER | {"data": str(folder), "setup": lines} | (cluster or {})))
    return Trial(run, file, calls)


def wait_until(
    condition: Callable[[], bool],
    what: str,
    explain: Callable[[], str] = lambda: "",
    patience_s: float = PATIENCE_S,
) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}\n{explain()}"
        time.sleep(0.2)


def nodes_of(job: Queued) -> list[str]:
    return slurm("scontrol", "show", "hostnames", job.where).split()


def preempt(node: str, *charge: str) -> None:
    """Somebody with priority wants the whole node, for a second."""
    slurm(
        "sbatch",
        "--partition=high",
        "--exclusive",
        f"--nodelist={node}",
        "--time=1",
        "--output=/dev/null",
        "--wrap=sleep 1",
        *charge,
    )


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
