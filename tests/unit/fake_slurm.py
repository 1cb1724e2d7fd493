"""Programs that stand where Slurm's would, at the process boundary."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Mapping[str, str]) -> Path:
    """Put the programs first on the path; returns the folder that they know as $FAKE."""
    bin, folder = tmp_path / "bin", tmp_path / "fake"
    bin.mkdir()
    folder.mkdir()
    for name, text in programs.items():
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder
