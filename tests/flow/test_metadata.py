"""A shared file system serves few names well and many badly: what an attempt may ask of it is a committed budget."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HERE = Path(__file__).parent
CALLS = 36  # for one attempt at a shard, beside those below
PER_PART = 7  # look for it, look for a rival's manifest, write, link, make durable, remove twice
PER_INPUT = 2  # manifests and data files of the stages before it
INODES = 5  # that stay: the shard's folder, its data, its manifest; events and heartbeat of the attempt
SHARED_INODES = 3  # a round's, a stage's and another common folder, made by whoever is first
TRAIN = 90  # with a policy of four files
CHECKPOINT = 36


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    command = [sys.executable, HERE / "metadata.py", tmp_path_factory.mktemp("data") / "root"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{HERE}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_attempt_at_a_shard_keeps_to_its_budget_of_metadata_operations(costs, capsys):
    """Two parts each; a train shard writes a folder. What depends on the run's size is the manifests and files of its predecessors."""
    inputs = {"score": 1, "propose": 0, "curate": 2, "respond": 1, "train": 2}
    worst: dict[str, int] = {}
    for c in (c for c in costs if c["stage"] != "checkpoint"):
        stage = c["stage"]
        parts = c["calls"]["link"] - 1
        budget = TRAIN if stage == "train" else CALLS + PER_PART * parts + PER_INPUT * inputs[stage]
        assert c["total"] <= budget, (
            f"{c['shard']} made {c['total']} calls, its budget is {budget}: {c['calls']}"
        )
        worst[stage] = max(worst.get(stage, 0), c["total"])
    with capsys.disabled():
        print(f"\nmetadata operations of an attempt: {worst}, of a checkpoint: {costs[-1]['total']:.0f}")


def test_a_shard_leaves_five_names_and_a_policy_its_files(costs):
    for c in (c for c in costs if c["stage"] not in ("checkpoint", "train")):
        assert c["inodes"] <= INODES + SHARED_INODES, c
    repeated = [
        c["inodes"]
        for stage in ("score", "propose", "respond")
        for c in costs
        if c["stage"] == stage and " 2/" in c["shard"]
    ]
    assert len(repeated) == 4 and set(repeated) == {INODES}
    (train,) = (c for c in costs if c["stage"] == "train")
    assert train["inodes"] <= INODES + SHARED_INODES + 5


def test_checkpoints_cost_the_same_however_many_there_were(costs):
    *_, c = costs
    assert c["total"] <= CHECKPOINT and c["inodes"] == 2 * 4, (
        "the last two: a folder, two files and a manifest each"
    )
