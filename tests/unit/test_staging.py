"""Weights on the node's own disk."""

import os
import shutil
from pathlib import Path

import pytest

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
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied again"))
    assert node_local(policy, tmp_path / "local") == first


def test_other_weights_of_the_same_name_are_another_copy(policy, tmp_path):
    first = node_local(policy, tmp_path / "local")
    (policy / "model.safetensors").write_bytes(b"trained")
    second = node_local(policy, tmp_path / "local")
    assert first != second and (second / "model.safetensors").read_bytes() == b"trained"


def test_a_full_disk_costs_the_copy_only(policy, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert node_local(policy, tmp_path / "local") == policy
    assert names(tmp_path / "local") == [] and "No space left" in capsys.readouterr().err


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
