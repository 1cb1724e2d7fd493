"""Exactly-once under SIGKILL: the real stages, run directory and plan with an engine that is a pure function (see `deterministic`)."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("deterministic.py")
NUM_RUNS, NUM_WORKERS = 200, 2
MEMORY = (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)  # thousands of tiny files; the kills do not depend on the disk


@pytest.mark.timeout(300)
@pytest.mark.parametrize("more", [[], ["--turns"]], ids=["frozen", "turns"])
def test_a_run_killed_at_any_file_system_call_resumes_to_the_same_bytes_and_repeats_no_committed_part(
    capsys, more
):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        seen = run_drivers(folder, more)
    with capsys.disabled():
        print(
            f"\nkill points: {seen['runs']} runs killed {seen['killed']} times (of {seen['points'] // NUM_WORKERS} points in an undisturbed run), "
            f"{seen['reused']} committed parts reused, 0 computed twice; all digests equal; {seen['leftovers']} files left beside published data"
        )
    assert seen["runs"] == NUM_RUNS
    assert seen["killed"] >= 200
    assert seen["reused"] > 0


def run_drivers(folder: str, more: list[str]) -> Counter[str]:
    drivers = []
    for worker in range(NUM_WORKERS):
        own = Path(folder, str(worker))
        own.mkdir()
        command = [
            sys.executable,
            str(DRIVER),
            str(own),
            f"--runs={NUM_RUNS}",
            f"--worker={worker}",
            f"--workers={NUM_WORKERS}",
            *more,
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        drivers.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    seen: Counter[str] = Counter()
    for driver in drivers:
        out, err = driver.communicate()
        assert driver.returncode == 0, err
        seen.update(json.loads(out.splitlines()[-1]))
    return seen
