"""Driving real runs from tests: the verbs as processes, and looks at what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from serl.run.rundir import Manifest, Run

SLOW = pytest.mark.skipif(not os.environ.get("SERL_SLOW"), reason="set SERL_SLOW=1 to run it")
"""Minutes of two cores; a quicker test holds most of what it holds."""

TINY = Path(__file__).parent / "tiny.yaml"
PATIENCE_S = 400


@dataclass(frozen=True, slots=True)
class Verb:
    """A running `python -m jobs.VERB`, its output in a file."""

    process: subprocess.Popen
    log: Path

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE_S)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def verb(name: str, *arguments: str, data: Path) -> Verb:
    data.mkdir(parents=True, exist_ok=True)
    log = data / f"{name}-{time.time_ns()}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", f"jobs.{name}", "--data", str(data), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Verb(process, log)


def run_verb(name: str, *arguments: str, data: Path) -> tuple[int, str]:
    v = verb(name, *arguments, data=data)
    return v.wait(), v.said()


def open_run(data: Path, name: str) -> Run:
    return Run.open(data / "runs" / name)


def manifests(run: Run) -> dict[str, Manifest]:
    """Every manifest of a finished run; refuses a run that lacks one."""
    found = {
        f"{round}/{stage}/{m.shard.index}": m
        for round, stage in ((s.round, s.name) for s in run.config.stages)
        for m in run.complete(round, stage)
    }
    on_disk = len(list(run.root.glob("round_*/*/shard_*.json")))
    assert on_disk == len(found), f"{on_disk} manifests on disk, {len(found)} planned"
    return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.05)


def event_seen(run_root: Path, stage: str, round: int, kind: str) -> bool:
    """Whether an attempt of the stage has said `kind`."""
    for path in (run_root / "events").glob(f"{stage}-r{round:03d}-*.jsonl"):
        if any(
            json.loads(line)["kind"] == kind
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ):
            return True
    return False


def tasks_of(launcher: int, stage: str) -> list[int]:
    """The processes at work on a stage: the leaves of the launcher's process tree whose log folder is of that stage."""
    leaves = []
    for p in psutil.Process(launcher).children(recursive=True):
        try:
            command = " ".join(p.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "submitit.core._submit" in command and f"-{stage}/" in command:
            leaves.append(p.pid)
    return sorted(leaves)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def left_behind(run: Run) -> list[str]:
    """Processes that still name the run."""
    names = []
    for p in psutil.process_iter():
        try:
            if p.pid != os.getpid() and str(run.root) in " ".join(p.cmdline()):
                names.append(f"{p.pid} {' '.join(p.cmdline())[:120]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return names
