"""A checkpoint is whole or it is not there; the newest that can be trusted is found, and the last one is never lost."""

import json
from pathlib import Path

import pytest

from serl.engines import checkpoint
from serl.engines.checkpoint import Manifest, newest_valid, partial_folder, prune, publish, step_folder
from serl.run.files import sha256

FIRST, SECOND = "rank_00000_00000.safetensors", "rank_00001_00000.safetensors"


def write(root: Path, step: int, attempt: str = "a", content: bytes = b"weights") -> Path:
    partial = partial_folder(root, step, attempt)
    partial.mkdir(parents=True)
    paths = [partial / FIRST, partial / SECOND]
    for path, data in zip(paths, (content, content * step)):
        path.write_bytes(data)
    files = {path.name: (path.stat().st_size, sha256(path)) for path in paths}
    return publish(
        partial, Manifest(step=step, world_size=2, zero=1, dtype="float32", extra={"round": 3}, files=files)
    )


def test_the_manifest_names_what_every_rank_wrote(tmp_path):
    manifest = checkpoint.read_manifest(write(tmp_path, 2))
    assert {name: size for name, (size, _) in manifest.files.items()} == {FIRST: 7, SECOND: 14}


def test_the_newest_is_found_with_what_was_saved(tmp_path):
    for step in (5, 125):
        write(tmp_path, step)
    found = newest_valid(tmp_path)
    assert (found.folder, found.manifest.step, found.manifest.extra, found.rejected) == (
        tmp_path / "step_000125",
        125,
        {"round": 3},
        (),
    )


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert newest_valid(tmp_path / "absent").folder is None
    assert newest_valid(tmp_path).rejected == ()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("harm", "name", "reason"),
    [
        (cut, FIRST, "its manifest says"),
        (flip, FIRST, "does not match its hash"),
        (Path.unlink, SECOND, "is missing"),
        (Path.unlink, "manifest.json", "manifest missing"),
        (cut, "manifest.json", "manifest missing or unreadable"),
        (lambda p: p.write_text("[1]"), "manifest.json", "manifest missing or unreadable"),
        (
            lambda p: p.write_text(json.dumps({"files": {}})),
            "manifest.json",
            "manifest missing or unreadable",
        ),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_its_reason(tmp_path, harm, name, reason):
    write(tmp_path, 1)
    harm(write(tmp_path, 2) / name)
    found = newest_valid(tmp_path)
    assert found.folder == step_folder(tmp_path, 1)
    assert len(found.rejected) == 1 and reason in found.rejected[0] and "step_000002" in found.rejected[0]


def test_an_attempt_that_died_while_writing_is_invisible(tmp_path):
    write(tmp_path, 1)
    partial_folder(tmp_path, 2, "dead").mkdir(parents=True)
    assert newest_valid(tmp_path).manifest.step == 1


def test_the_first_of_two_attempts_at_a_step_stays(tmp_path):
    write(tmp_path, 1, "a", b"first")
    write(tmp_path, 1, "b", b"other")
    assert (step_folder(tmp_path, 1) / FIRST).read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]


def test_a_broken_checkpoint_is_replaced_when_its_step_is_saved_again(tmp_path):
    cut(write(tmp_path, 1) / FIRST)
    write(tmp_path, 1, "b")
    assert checkpoint.faults(step_folder(tmp_path, 1)) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]


def test_pruning_keeps_the_newest_and_clears_what_dead_attempts_left(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    partial_folder(tmp_path, 3, "dead").mkdir()
    partial_folder(tmp_path, 5, "alive").mkdir()
    prune(tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".step_000005.alive.partial",
        "step_000003",
        "step_000004",
    ]


def test_pruning_never_deletes_the_last_complete_checkpoint(tmp_path):
    write(tmp_path, 1)
    for step in (2, 3):
        (write(tmp_path, step) / FIRST).unlink()
    prune(tmp_path, keep=1)
    assert newest_valid(tmp_path).manifest.step == 1


def test_pruning_deletes_nothing_where_nothing_is_complete(tmp_path):
    (write(tmp_path, 1) / "manifest.json").unlink()
    assert prune(tmp_path, keep=1) == []
    assert step_folder(tmp_path, 1).is_dir()
