"""Weights on the node's own disk."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from serl.run import staging
from serl.run.staging import IDLE_S, node_local


@pytest.fixture
def policy(tmp_path) -> Path:
    folder = tmp_path / "shared" / "policy"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_without_a_place_the_original_serves(policy):
    assert node_local(policy, None) == policy


def test_the_second_task_on_a_node_reads_the_firsts_copy(policy, tmp_path, monkeypatch):
    first = node_local(policy, tmp_path / "local")
    assert names(first) == names(policy) and (first / "model.safetensors").read_bytes() == b"weights"
    monkeypatch.setattr(staging, "_copy", lambda *_: pytest.fail("copied again"))
    assert node_local(policy, tmp_path / "local") == first


def test_other_weights_of_the_same_name_are_another_copy(policy, tmp_path):
    first = node_local(policy, tmp_path / "local")
    (policy / "model.safetensors").write_bytes(b"trained")
    second = node_local(policy, tmp_path / "local")
    assert first != second and (second / "model.safetensors").read_bytes() == b"trained"


def test_a_full_disk_costs_the_copy_only_and_is_found_out_once(policy, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "_copy", full)
    assert node_local(policy, tmp_path / "local") == policy
    assert "No space left" in capsys.readouterr().err
    monkeypatch.setattr(staging, "_copy", lambda *_: pytest.fail("tried again"))
    assert node_local(policy, tmp_path / "local") == policy
    assert [name[-8:] for name in names(tmp_path / "local")] == [".refused"], "no draft and no claim is left"


def task(policy: Path, local: Path, start: float, log: Path) -> None:
    """A task of an array; what it copies itself it writes down, slowly, as a large model is."""

    def slowly(source: Path, target: Path, claim: Path) -> None:
        with open(log, "a") as f:
            f.write(f"{source.name}\n")
        time.sleep(0.3)
        copy(source, target, claim)

    copy, staging._copy = staging._copy, slowly
    time.sleep(max(0.0, start - time.time()))
    found = node_local(policy, local)
    assert (found / "model.safetensors").read_bytes() == b"weights" and found.parent == local


def start_tasks(count: int, *args) -> list[multiprocessing.Process]:
    spawn = multiprocessing.get_context("fork")
    tasks = [spawn.Process(target=task, args=args) for _ in range(count)]
    for t in tasks:
        t.start()
    return tasks


def test_tasks_that_start_together_copy_once(policy, tmp_path):
    """Eight of them used to write eight copies to the disk of their node, and to read as many from the shared file system."""
    tasks = start_tasks(8, policy, tmp_path / "local", time.time() + 0.5, tmp_path / "log")
    for t in tasks:
        t.join(30)
    assert [t.exitcode for t in tasks] == [0] * 8
    assert (tmp_path / "log").read_text().splitlines() == ["config.json", "model.safetensors"]
    assert len(names(tmp_path / "local")) == 1


def test_a_task_killed_while_it_copies_holds_the_others_up_for_a_moment_only(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "SILENT_S", 1.0)
    (first,) = start_tasks(1, policy, tmp_path / "local", 0.0, tmp_path / "log")
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    first.kill()
    first.join()
    others = start_tasks(3, policy, tmp_path / "local", 0.0, tmp_path / "log")
    for t in others:
        t.join(30)
    assert [t.exitcode for t in others] == [0] * 3
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["config.json", "model.safetensors"]


def test_copies_go_when_nobody_opened_them_for_long(policy, tmp_path):
    first = node_local(policy, tmp_path / "local")
    draft = tmp_path / "local" / ".0123.99"
    draft.mkdir()
    (policy / "model.safetensors").write_bytes(b"trained")
    second = node_local(policy, tmp_path / "local")
    assert first.exists() and draft.exists(), "somebody may be loading them"
    for old in (first, draft):
        os.utime(old, (0, second.stat().st_mtime - IDLE_S - 60))
    assert node_local(policy, tmp_path / "local") == second
    assert names(tmp_path / "local") == [second.name]
