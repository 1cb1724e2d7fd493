"""A checkpoint is whole or it is not there; the newest that can be trusted is found, and the last one is never lost."""

import json
from pathlib import Path

import pytest

from serl import checkpoint
from serl.checkpoint import Manifest, hash_files, newest_valid, partial_folder, prune, publish, step_folder


def write(root: Path, step: int, attempt: str = "a", content: bytes = b"weights") -> Path:
    partial = partial_folder(root, step, attempt)
    (partial / "state").mkdir(parents=True)
    (partial / "state" / "mp_rank_00_model_states.pt").write_bytes(content)
    (partial / "state" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").write_bytes(content * step)
    files = hash_files(partial, 0) | hash_files(partial, 1)
    return publish(partial, Manifest(step=step, world_size=2, zero=1, dtype="float32", extra={"round": 3}, files=files))


def test_each_rank_hashes_what_it_wrote(tmp_path):
    folder = write(tmp_path, 1)
    assert list(hash_files(folder, 1)) == ["state/zero_pp_rank_1_mp_rank_00_optim_states.pt"]
    assert set(hash_files(folder, 0)) == {"state/mp_rank_00_model_states.pt", "manifest.json"}


def test_the_newest_is_found_with_what_was_saved(tmp_path):
    for step in (5, 125):
        write(tmp_path, step)
    found = newest_valid(tmp_path)
    assert (found.folder, found.manifest.step, found.manifest.extra, found.rejected) == (tmp_path / "step_000125", 125, {"round": 3}, ())


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
        (cut, "state/mp_rank_00_model_states.pt", "its manifest says"),
        (flip, "state/mp_rank_00_model_states.pt", "does not match its hash"),
        (Path.unlink, "state/zero_pp_rank_1_mp_rank_00_optim_states.pt", "is missing"),
        (Path.unlink, "manifest.json", "manifest missing"),
        (cut, "manifest.json", "manifest missing or unreadable"),
        (lambda p: p.write_text("[1]"), "manifest.json", "manifest missing or unreadable"),
        (lambda p: p.write_text(json.dumps({"files": {}})), "manifest.json", "manifest missing or unreadable"),
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
    (partial_folder(tmp_path, 2, "dead") / "state").mkdir(parents=True)
    assert newest_valid(tmp_path).manifest.step == 1


def test_the_first_of_two_attempts_at_a_step_stays(tmp_path):
    write(tmp_path, 1, "a", b"first")
    write(tmp_path, 1, "b", b"other")
    assert (step_folder(tmp_path, 1) / "state/mp_rank_00_model_states.pt").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]


def test_a_broken_checkpoint_is_replaced_when_its_step_is_saved_again(tmp_path):
    cut(write(tmp_path, 1) / "state/mp_rank_00_model_states.pt")
    write(tmp_path, 1, "b")
    assert checkpoint.faults(step_folder(tmp_path, 1)) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]


def test_pruning_keeps_the_newest_and_clears_what_dead_attempts_left(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    partial_folder(tmp_path, 3, "dead").mkdir()
    partial_folder(tmp_path, 5, "alive").mkdir()
    prune(tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".step_000005.alive.partial", "step_000003", "step_000004"]


def test_pruning_never_deletes_the_last_complete_checkpoint(tmp_path):
    write(tmp_path, 1)
    for step in (2, 3):
        (write(tmp_path, step) / "state/mp_rank_00_model_states.pt").unlink()
    prune(tmp_path, keep=1)
    assert newest_valid(tmp_path).manifest.step == 1


def test_pruning_deletes_nothing_where_nothing_is_complete(tmp_path):
    (write(tmp_path, 1) / "manifest.json").unlink()
    assert prune(tmp_path, keep=1) == []
    assert step_folder(tmp_path, 1).is_dir()
