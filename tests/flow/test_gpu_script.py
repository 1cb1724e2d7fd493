"""The script for a GPU machine, in miniature on this one, so that it still runs when there is a GPU."""

import inspect
import json
import os
import subprocess
import sys

from tests.conftest import ROOT


def test_every_claim_of_the_gpu_script_holds_in_miniature(tmp_path):
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/gpu/check.py")]
    done = subprocess.run(
        [*command, "--small", "--out", str(tmp_path / "found.json"), "--anatomy", str(tmp_path / "anatomy")],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["card"] == "CPU" and len(found["findings"]) == 20
    named = {f["name"]: f["figures"] for f in found["findings"]}
    assert named["sampling, tiny"]["tokens/s_ours"] > 0
    assert sorted(p.name for p in (tmp_path / "anatomy").iterdir()) == ["sampling.txt", "step.txt"]
    assert named["ZeRO 3: export, resume"]["bitwise"] == "True"


def test_every_group_of_the_full_script_is_there(monkeypatch):
    """Names and options are strings there; what they name must exist."""
    monkeypatch.syspath_prepend(ROOT / "tests/gpu")
    import check

    for group in (check.FULL | check.SMALL).values():
        module, function = group.work.split(".")
        inspect.signature(getattr(__import__(module), function)).bind(None, None, **group.options)
