"""What many tests need: a complete small configuration, and a run directory made of it."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import settings

from serl.config.files import Source
from serl.config.read import parse
from serl.config.run import Phase, RunConfig
from serl.run.rundir import Run
from serl.stages import kinds

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent

SMALL: dict = {
    "name": "small",
    "seed": 1,
    "rounds": 2,
    "stages": ["propose", "curate", "respond", "train"],
    "base": {"kind": "checkpoint", "path": "base"},
    "seeds": {"kind": "jsonl", "path": "seeds.jsonl", "gold": "answer"},
    "prompts": {
        "propose_system": "Write.",
        "propose_opening": "Questions:",
        "respond_user": "{question}",
        "respond_plain": "Q: {question}\nA:",
    },
    "engine": {"max_model_len": 512},
    "propose": {"shards": 2, "prompts": 8, "sampling": {"temperature": 1.0, "max_tokens": 64}},
    "curate": {"max_instructions": 16},
    "respond": {"shards": 3, "samples": 4, "sampling": {"temperature": 1.0, "max_tokens": 64}},
    "train": {"objective": {"kind": "reinforce_pp"}, "optimizer": {"lr": 1e-4}},
}


def phased(tree: dict) -> dict:
    """A tree with its stages at the top, as tests like to change them, as one phase called self_play."""
    if "phases" in tree:
        return tree
    inside = {*Phase.model_fields, *kinds()}
    phase = {k: v for k, v in tree.items() if k in inside}
    return {k: v for k, v in tree.items() if k not in inside} | {"phases": {"self_play": phase}}


def run_config(tree: dict) -> RunConfig:
    """The run of a tree, flat or in phases."""
    return parse(Source(Path("test.yaml"), json.loads(json.dumps(phased(tree))), {}))


@pytest.fixture
def small_tree() -> dict:
    """The small configuration as plain values, to be changed freely."""
    return copy.deepcopy(SMALL)


@pytest.fixture
def run(tmp_path: Path, small_tree: dict) -> Run:
    return Run.create(tmp_path / "runs" / "small", run_config(small_tree), "test")
