"""A GPU that fails under a generating shard, without a scheduler: the shard is tried once more, elsewhere."""

import re
from pathlib import Path

import pytest
import yaml
from chain import manifests, open_run, run_verb

from tests.conftest import ROOT, SMALL

SPEC = """
from serl.config.schema import Count
from serl.stages.kind import Kind, StageSection

class Ponder(StageSection):
    faults: Count

class PonderKind(Kind):
    section = Ponder
    engine = "vllm"

KIND = PonderKind()
"""
RUN = """
import os

def run(work):
    attempt = work.attempt({})
    tried = work.run.root / "tried"
    tried.open("a").write(os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
    if len(tried.read_text().split()) <= work.stage.section.faults:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
    return attempt.publish_bytes(".txt", b"thought", 1, {})
"""


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A data root, a kind that asks for a GPU, and a machine that is said to have two."""
    package = tmp_path / "strangers/faulty/ponder"
    package.mkdir(parents=True)
    (package / "spec.py").write_text(SPEC)
    (package / "run.py").write_text(RUN)
    base = tmp_path / "models/base"
    base.mkdir(parents=True)
    (base / "config.json").write_text('{"model_type": "none"}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_text("\x02" + "\0" * 7 + "{}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path / 'strangers'}")
    return tmp_path


def launch(site: Path, *, faults: int, gpus: int) -> tuple[int, str, list[str]]:
    phase = {"stages": ["ponder"], "ponder": {"faults": faults}}
    tree = {key: SMALL[key] for key in ("base", "prompts", "engine")}
    tree |= {"name": "faulty", "plugins": ["faulty.ponder"], "phases": {"think": phase}}
    (site / "run.yaml").write_text(yaml.safe_dump(tree))
    (site / "cluster.yaml").write_text(yaml.safe_dump({"kind": "local", "gpus": gpus}))
    code, said = run_verb("launch", str(site / "run.yaml"), "--cluster", str(site / "cluster.yaml"), data=site)
    return code, said, (site / "runs/faulty/tried").read_text().split()


@pytest.mark.parametrize(("gpus", "used"), [(2, ["0", "1"]), (1, ["0", "0"])])
def test_a_shard_whose_gpu_failed_is_tried_once_more_on_another_where_there_is_one(site, gpus, used):
    code, said, tried = launch(site, faults=1, gpus=gpus)
    assert (code, tried) == (0, used), said
    assert manifests(open_run(site, "faulty"))["1/ponder/0"].files[0].rows == 1


def test_a_second_fault_is_a_failure_and_told_with_its_log(site):
    code, said, tried = launch(site, faults=9, gpus=2)
    assert (code, tried) == (1, ["0", "1"])
    assert re.search(r"ponder 1/1 failed; the end of its log:.*uncorrectable ECC", " ".join(said.split()))
