"""What may go and what never does."""

import json
import os
import time
from pathlib import Path

import pytest

from jobs import gc
from jobs.runs import garbage
from jobs.runs.processes import claim
from jobs.runs.queue import Journal, SlurmError, Submission
from serl.run.attempt import Attempt
from serl.run.rundir import Run

OLD = time.time() - 10 * 3600


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    def refuse():
        raise SlurmError("squeue: not found")

    monkeypatch.setattr("jobs.runs.state.look_at_queue", refuse)


def put(path: Path, text: str = "x" * 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def age(root: Path) -> None:
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            os.utime(Path(parent) / name, (OLD, OLD), follow_symlinks=False)


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def littered(run):
    """Propose and train of round 1 are done; every kind of leftover lies about. Returns the run, its keepers and its litter."""
    litter = []
    for shard in run.shards(1, "propose"):
        Attempt(run, shard, id="a", inputs={}).publish_bytes(".jsonl", b"data", 1)
    (train,) = run.shards(1, "train")
    attempt = Attempt(run, train, id="b", inputs={})
    put(attempt.folder / "policy.b" / "model.safetensors", "weights")
    attempt.publish_folder(attempt.folder / "policy.b", "policy", {})
    folder = run.stage_dir(1, "propose") / "shard_00000"
    litter += [
        put(folder / "part_00000.abcd1234"),
        put(folder / "rival.jsonl"),
        put(folder / ".x.1-0.tmp"),
        put(run.stage_dir(1, "propose") / ".shard_00000.json.9-1.tmp"),
    ]
    litter += [
        put(attempt.folder / "checkpoints.abcd1234" / "step_000010" / "masters.safetensors", "y" * 5000)
    ]
    litter += [
        put(run.root / "logs" / "r001-propose" / "tok" / "1_0_result.pkl"),
        put(run.root / "logs" / "r001-train" / "tok" / "heartbeat-1-00000.json"),
    ]
    put(run.root / "code" / "jobs" / "__pycache__" / "plan.pyc")
    put(run.root / "code" / "jobs" / "plan.py")
    put(run.root / "logs" / "r001-propose" / "tok" / "1_0_0_log.out")
    put(run.root / "logs" / "r001-respond" / "tok" / "2_0_submitted.pkl")
    put(run.stage_dir(1, "respond") / "shard_00001" / "part_00000.abcd1234")
    put(
        run.stage_dir(2, "train")
        / "shard_00000"
        / "checkpoints.ffff0000"
        / "step_000010"
        / "masters.safetensors"
    )
    age(run.root)
    return run, litter


def ask(run, *argv: str) -> dict:
    answer = gc.body([*argv, "--data", str(run.data_root)])
    assert answer == 0
    return dict(answer.fields)


def test_a_dry_run_lists_by_kind_and_touches_nothing(littered):
    run, _ = littered
    before = everything(run.root)
    told = ask(run)
    assert everything(run.root) == before and told["applied"] is False
    kinds = {item["kind"]: item["inodes"] for item in told["items"]}
    assert kinds == {
        "parts": 1,
        "stale attempts": 1,
        "temporaries": 2,
        "checkpoints": 3,
        "submission files": 2,
    }
    assert told["inodes"] == 9 and told["bytes"] > 5000


def test_what_a_manifest_names_what_is_unfinished_and_every_policy_stays(littered):
    run, litter = littered
    before = everything(run.root)
    told = ask(run, "--apply")
    after = everything(run.root)
    assert set(before) - set(after) == {str(p.relative_to(run.root)) for p in litter} and told["inodes"] == 9
    assert (
        "round_001/train/policy/model.safetensors" in after and "logs/r001-propose/tok/1_0_0_log.out" in after
    )
    again = Run.open(run.root)
    for shard in (*again.shards(1, "propose"), *again.shards(1, "train")):
        for file in again.manifest(shard).files:
            assert again.path(again.manifest(shard), file).stat().st_size == file.bytes
    assert ask(run)["inodes"] == 0


def test_a_run_that_somebody_runs_is_left_alone(littered):
    run, litter = littered
    claim(run.root)
    told = ask(run, "--apply")
    assert all(p.exists() for p in litter) and told["inodes"] == 0
    assert f"process {os.getpid()}" in told["skipped"][0]


def test_a_run_whose_queue_nobody_knows_is_left_alone(littered):
    run, litter = littered
    Journal(run.root).add(Submission(token="t", job="r001-respond", shards=(0, 1, 2), id="5"))
    told = ask(run, "--apply")
    assert (
        all(p.exists() for p in litter)
        and "nobody knows whether its jobs are in the queue: squeue: not found" in told["skipped"][0]
    )


def test_what_changed_lately_stays(littered):
    run, litter = littered
    os.utime(litter[0])
    assert (
        ask(run)["inodes"] == 8
        and ask(run, "--older-than", "0")["inodes"] == 9
        and ask(run, "--older-than", "100")["inodes"] == 0
    )


def test_a_manifest_that_is_damaged_saves_its_run(littered):
    run, _ = littered
    (run.stage_dir(1, "propose") / "shard_00000.json").write_text("{")
    told = ask(run, "--apply")
    assert told["inodes"] == 0 and "damaged" in told["skipped"][0]


def test_shared_results_go_only_when_no_run_refers_to_them(run):
    data = run.data_root
    used = put(data / "shared" / "used" / "shard_00000.json")
    orphan = put(data / "shared" / "orphan" / "shard_00000.json")
    frozen = json.loads((run.root / "run.json").read_bytes())
    (run.root / "run.json").write_text(
        json.dumps(frozen | {"shared": {"r001-propose": "used"}, "sweep": "s"})
    )
    age(data)
    told = ask(run, "--apply")
    assert (
        used.exists()
        and not orphan.parent.exists()
        and [i["kind"] for i in told["items"]] == ["orphaned shared results"]
    )
    (run.root / "run.json").write_text("{")
    put(orphan)
    age(data)
    told = ask(run, "--apply")
    assert orphan.exists() and any("may use any of them" in s for s in told["skipped"])


def test_named_runs_are_all_that_is_looked_at(littered):
    run, _ = littered
    put(run.data_root / "shared" / "orphan" / "x")
    age(run.data_root)
    assert ask(run, "small")["inodes"] == 9 and ask(run)["inodes"] == 11


def test_what_cannot_be_removed_is_told_once_for_a_run_and_not_called_nothing(run, monkeypatch, capsys):
    """Once it was a line for each of its files, and then "nothing can go"."""

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    items = [
        garbage.Item(owner="small", kind="parts", path=put(run.root / f"f{i}"), inodes=1, bytes=1, changed=0.0)
        for i in range(9)
    ]
    monkeypatch.setattr("jobs.runs.garbage.busy", lambda *_: "")
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    gone, left = garbage.remove(items, {"small": run}, run.data_root)
    assert (gone, left) == ([], ["small: 9 of 9 could not be removed: Read-only file system"])
    gc.answer(gone, left, applied=True)
    assert "nothing was removed" in capsys.readouterr().out
