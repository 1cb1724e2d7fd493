"""The publication protocol: parts, first manifest wins, and what a reader refuses."""

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from serl.run import attempt as attempts
from serl.run.attempt import Attempt
from serl.run.rundir import Manifest, Run, RunError, Shard
from tests.conftest import run_config

SHARD = Shard(round=1, stage="propose", index=0, count=2)
CURATE = Shard(round=1, stage="curate", index=0, count=1)
TRAIN = Shard(round=1, stage="train", index=0, count=1)


def attempt(run: Run, id: str = "a", shard: Shard = SHARD, **inputs: str) -> Attempt:
    return Attempt(run, shard, id=id, inputs=inputs)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_run_is_created_once_and_opens_as_what_it_was(run, small_tree):
    again = Run.open(run.root)
    assert again == run
    assert again.config.digest() == run.config.digest()
    with pytest.raises(
        RunError, match=r"runs/small: this run exists; continue it with `python -m jobs.resume small`"
    ):
        Run.create(run.root, run.config, "test")
    assert os.listdir(run.root.parent) == ["small"]


def test_a_launcher_that_dies_while_creating_a_run_leaves_the_name_free(tmp_path, run, monkeypatch):
    """It used to leave a folder without run.json, which launch refused as existing and resume as no run."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Run.create(tmp_path / "runs" / "other", run.config, "test")
    assert not (tmp_path / "runs" / "other").exists()
    assert Run.create(tmp_path / "runs" / "other", run.config, "test").root.is_dir()


def test_a_run_that_cannot_be_created_or_opened_names_path_and_remedy(tmp_path, run):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="writable data root"):
        Run.create(tmp_path / "file" / "runs" / "x", run.config, "test")
    with pytest.raises(RunError, match=r"nowhere: not a run .*jobs\.status"):
        Run.open(tmp_path / "nowhere")
    for damage in ("{", "{}", '{"config": {"name": "x"}, "code": ""}', "[]"):
        (run.root / "run.json").write_text(damage)
        with pytest.raises(RunError, match=r"(?s)small/run\.json: damaged.*restore"):
            Run.open(run.root)


def test_published_bytes_are_read_back_with_their_manifest(run):
    data = b'{"a": 1}\n'
    manifest = attempt(run, policy="p").publish_bytes(".jsonl", data, 1, {"kept": 1})
    assert run.manifest(SHARD) == manifest
    assert (manifest.attempt, manifest.inputs, manifest.config, manifest.counts) == (
        "a",
        {"policy": "p"},
        run.config.digest(),
        {"kept": 1},
    )
    assert run.read(manifest) == data
    assert files_below(run.stage_dir(1, "propose")) == ["shard_00000.json", "shard_00000/a.jsonl"]


def test_the_later_of_two_attempts_gets_the_winners_manifest_and_its_own_data_is_removed(run):
    first, second = attempt(run, "first"), attempt(run, "second")
    second.commit(3, b"a part")
    won = first.publish_bytes(".jsonl", b"1", 1)
    lost = second.publish_bytes(".jsonl", b"2", 1)
    assert won == lost
    assert run.read(lost) == b"1"
    assert files_below(run.stage_dir(1, "propose")) == ["shard_00000.json", "shard_00000/first.jsonl"]


def _rival(root: Path, id: str, gate) -> None:
    mine = attempt(Run.open(root), id)
    gate.wait()
    try:
        for part in range(3):
            mine.commit(part, id.encode())
        mine.publish_bytes(".jsonl", id.encode(), 1)
    except FileNotFoundError:  # the winner swept the folder under us: we have lost, and the manifest says so
        assert mine.run.done(SHARD)


def test_of_processes_that_publish_at_once_exactly_one_wins_and_its_data_is_whole(run):
    fork = multiprocessing.get_context("fork")
    for index in range(10):
        gate = fork.Barrier(3)
        rivals = [fork.Process(target=_rival, args=(run.root, f"{index}-{i}", gate)) for i in range(3)]
        for p in rivals:
            p.start()
        for p in rivals:
            p.join()
        assert [p.exitcode for p in rivals] == [0, 0, 0]
        manifest = run.manifest(SHARD)
        assert run.read(manifest) == manifest.attempt.encode()
        (run.stage_dir(1, "propose") / "shard_00000.json").unlink()


def test_parts_are_found_by_the_next_attempt_of_the_same_inputs_and_no_other(run):
    attempt(run, "a", policy="1").commit(0, b"part")
    assert attempt(run, "b", policy="1").part(0) == b"part"
    assert attempt(run, "b", policy="1").part(1) is None
    assert attempt(run, "b", policy="2").part(0) is None
    assert attempt(run, "b").part(0) is None


def test_a_rivals_part_that_was_faster_is_the_one_that_is_kept(run):
    attempt(run, "a").commit(0, b"first")
    assert attempt(run, "b").commit(0, b"second") == b"first"


def publish_policy(run: Run, id: str, weights: str, **inputs: str) -> str:
    """Publish a one-file folder; returns what is inside the folder that the manifest then names."""
    own = attempt(run, id, TRAIN, **inputs)
    (own.folder / f"policy.{id}" / "sub").mkdir(parents=True)
    (own.folder / f"policy.{id}" / "sub" / "weights").write_text(weights)
    manifest = own.publish_folder(own.folder / f"policy.{id}", "policy", {"steps": 3})
    assert [f.name for f in manifest.files] == ["policy/sub/weights"]
    assert files_below(own.stage_dir) == ["policy/origin.json", "policy/sub/weights", "shard_00000.json"]
    content = (own.stage_dir / "policy/sub/weights").read_text()
    assert hashlib.sha256(content.encode()).hexdigest() == manifest.files[0].sha256
    return content


def kill_before_manifest(run: Run, damage: str | None = None) -> None:
    """The state that a kill between naming the folder and writing the manifest leaves."""
    (run.stage_dir(1, "train") / "shard_00000.json").unlink()
    if damage is not None:
        (run.stage_dir(1, "train") / "policy/sub/weights").write_text(damage)


def test_a_whole_folder_of_a_killed_attempt_is_adopted(run):
    assert publish_policy(run, "killed", "first") == "first"
    kill_before_manifest(run)
    assert publish_policy(run, "next", "second") == "first"


def test_a_folder_that_was_damaged_or_made_from_other_inputs_gives_way(run):
    publish_policy(run, "killed", "first")
    kill_before_manifest(run, damage="torn")
    assert publish_policy(run, "next", "second") == "second"
    kill_before_manifest(run)
    assert publish_policy(run, "last", "third", policy="another") == "third"


def build(own: Attempt, weights: str) -> Path:
    folder = own.folder / f"policy.{own.id}"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights").write_text(weights)
    return folder


def assert_manifest_is_of_what_stands(run: Run, manifest: Manifest) -> None:
    content = (run.stage_dir(1, "train") / "policy/sub/weights").read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest.files[0].sha256


def test_a_rival_that_publishes_while_a_stale_folder_is_judged_keeps_its_folder(run, monkeypatch):
    """Its manifest used to name a folder that the slower attempt had moved away and replaced by its own."""
    publish_policy(run, "old", "old", policy="another")
    kill_before_manifest(run)
    fast, slow = attempt(run, "fast", TRAIN), attempt(run, "slow", TRAIN)
    built, judge, judged = build(fast, "fast"), attempts._contents, []

    def contents(folder: Path, *sealed: dict) -> dict[str, list]:
        found = judge(folder, *sealed)
        if folder.name == "policy" and not judged:
            judged.append(folder)
            fast.publish_folder(built, "policy", {})
        return found

    monkeypatch.setattr(attempts, "_contents", contents)
    origin = run.stage_dir(1, "train") / "policy/origin.json"
    origin.write_text(
        origin.read_text().replace(json.loads(origin.read_text())["key"], slow.key)
    )  # ours but torn, so that it is read to its end
    (run.stage_dir(1, "train") / "policy/sub/weights").write_text("torn")
    manifest = slow.publish_folder(build(slow, "slow"), "policy", {})
    assert judged and manifest.attempt == "fast"
    assert_manifest_is_of_what_stands(run, manifest)


@pytest.mark.parametrize("swept", [True, False])
def test_who_comes_after_the_winner_leaves_its_folder_alone(run, monkeypatch, swept):
    """One made from other inputs used to replace the published folder; one whose own was swept with the rest died of that."""
    winner, late = attempt(run, "winner", TRAIN), attempt(run, "late", TRAIN, policy="another")
    built, ours = build(winner, "winner"), build(late, "late")
    with monkeypatch.context() as patch:
        if not swept:
            patch.setattr(winner, "_clean", lambda _: None)
        winner.publish_folder(built, "policy", {})
    assert ours.is_dir() != swept
    manifest = late.publish_folder(ours, "policy", {})
    assert manifest.attempt == "winner"
    assert_manifest_is_of_what_stands(run, manifest)
    assert files_below(late.stage_dir) == ["policy/origin.json", "policy/sub/weights", "shard_00000.json"]


def test_a_digest_depends_on_content_alone(run, tmp_path, small_tree):
    other = Run.create(
        tmp_path / "elsewhere/runs/small", run_config(small_tree), "other code"
    )
    one = attempt(run, "a").publish_bytes(".jsonl", b"same", 1)
    two = attempt(other, "b").publish_bytes(".jsonl", b"same", 1, {"counts": 2})
    assert one.digest == two.digest


def test_a_manifest_of_another_configuration_is_refused_with_path_and_remedy(run):
    attempt(run, "a").publish_bytes(".jsonl", b"1", 1)
    frozen = run.root / "run.json"
    frozen.write_text(frozen.read_text().replace('"seed": 1', '"seed": 2'))
    changed = Run.open(run.root)
    with pytest.raises(
        RunError, match=r"shard_00000\.json: written for .*under configuration .*restore it, or launch"
    ):
        changed.manifest(SHARD)


def test_a_manifest_of_another_shard_count_is_refused(run):
    attempt(run, "a").publish_bytes(".jsonl", b"1", 1)
    with pytest.raises(RunError, match=r"shard_00000\.json: written for round 1 propose 1/2"):
        run.manifest(Shard(round=1, stage="propose", index=0, count=3))


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"shard": {}, "files": []}'])
def test_a_damaged_manifest_is_refused_with_path_and_remedy(run, damage):
    attempt(run, "a").publish_bytes(".jsonl", b"1", 1)
    (run.stage_dir(1, "propose") / "shard_00000.json").write_text(damage)
    with pytest.raises(RunError, match=r"shard_00000\.json: damaged .*remove it and resume"):
        run.manifest(SHARD)


def test_data_that_is_changed_or_missing_is_refused_and_the_remedy_works(run):
    manifest = attempt(run, "a").publish_bytes(".jsonl", b"data", 1)
    path = run.path(manifest, manifest.files[0])
    path.write_bytes(b"dada")
    with pytest.raises(
        RunError,
        match=r"a\.jsonl: its 4 bytes do not match the manifest; remove .*shard_00000\.json and resume",
    ):
        run.read(manifest)
    path.unlink()
    with pytest.raises(RunError, match=r"a\.jsonl: missing.*remove .*shard_00000\.json and resume"):
        run.read(manifest)
    (run.stage_dir(1, "propose") / "shard_00000.json").unlink()
    assert run.read(attempt(run, "b").publish_bytes(".jsonl", b"data", 1)) == b"data"


def test_a_stage_reads_as_complete_only_with_every_manifest_and_equal_inputs(run):
    other = Shard(round=1, stage="propose", index=1, count=2)
    attempt(run, "a", policy="1").publish_bytes(".jsonl", b"1", 1)
    with pytest.raises(
        RunError, match=r"round_001/propose: shards \[1\] are not done; `python -m jobs.resume small`"
    ):
        run.complete(1, "propose")
    attempt(run, "b", other, policy="2").publish_bytes(".jsonl", b"2", 1)
    with pytest.raises(RunError, match="computed from different inputs.*restore"):
        run.complete(1, "propose")
    (run.stage_dir(1, "propose") / "shard_00001.json").unlink()
    attempt(run, "b", other, policy="1").publish_bytes(".jsonl", b"2", 1)
    assert [m.shard.index for m in run.complete(1, "propose")] == [0, 1]


def test_a_shard_costs_few_metadata_operations(run, monkeypatch):
    """On a parallel file system every one of them is a round trip to one server."""
    counts: dict[str, int] = {}
    for name in ("fsync", "link", "unlink", "replace", "rename", "mkdir", "scandir", "stat", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda *a, _real=real, _name=name, **k: (
                counts.update({_name: counts.get(_name, 0) + 1}),
                _real(*a, **k),
            )[1],
        )
    mine = attempt(run, "a", CURATE)
    for part in range(4):
        mine.commit(part, b"x")
    mine.publish_bytes(".jsonl", b"xxxx", 4)
    assert sum(counts.values()) <= 40, counts
    assert counts.get("listdir", 0) == 0


def test_a_manifest_is_plain_json_that_says_where_the_shard_came_from(run):
    attempt(run, "a", policy="p").publish_bytes(".jsonl", b"1", 1, {"kept": 1})
    m = json.loads((run.stage_dir(1, "propose") / "shard_00000.json").read_bytes())
    assert {
        "shard",
        "files",
        "inputs",
        "config",
        "code",
        "attempt",
        "seconds",
        "created",
        "counts",
        "run",
    } == set(m)


def test_files_that_their_writers_hashed_are_not_read_again(run, monkeypatch):
    """Rank 0 used to read the whole policy once more, alone, while the GPUs of all waited."""
    own = attempt(run, "a", TRAIN)
    built = build(own, "a")
    names = sorted(str(p.relative_to(built)) for p in built.rglob("*") if p.is_file())
    read: list[str] = []
    hashes = attempts.sha256_of
    monkeypatch.setattr(
        attempts, "sha256_of", lambda paths: read.extend(p.name for p in paths) or hashes(paths)
    )
    path = built / names[0]
    sealed = {names[0]: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())}
    manifest = own.publish_folder(built, "policy", {}, sealed=sealed)
    assert read == [Path(name).name for name in names[1:]]
    for file in manifest.files:
        content = (run.stage_dir(1, "train") / file.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256
