"""Training state on the real DeepSpeed: read share by share, written behind, handed to the next training."""

from pathlib import Path

import pytest
import state_ranks as job
import torch
from test_trainer import run_ranks

from serl.engines.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_tokenizer(["a tiny vocabulary 0 1 2"], 259, folder)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("two") / "out"


@pytest.fixture(scope="module")
def two(base, out) -> dict:
    seen = run_ranks(2, base, out, script="state_ranks.py")
    assert all(seen[0][kind] == seen[1][kind] for kind in job.CASES), "all ranks see the same numbers"
    return seen[0]


@pytest.mark.parametrize("kind", job.CASES)
def test_a_model_read_share_by_share_is_the_model(two, kind):
    assert two[kind]["read"] == two[kind]["start"]
    assert two[kind]["first"][0] == pytest.approx(two[kind]["steps"][0], rel=1e-6)


@pytest.mark.parametrize("kind", job.CASES)
def test_a_resumed_training_checkpoints_its_layers(two, kind):
    """Without a pass of log-probabilities before it, a step used to run in the mode that models are loaded
    in: eval, nothing checkpointed.
    """
    assert two[kind]["layer_runs"] == 2 * two[kind]["passes"] > 0


@pytest.mark.parametrize("kind", job.CASES)
def test_gradients_are_added_up_in_float32(two, kind):
    assert two[kind]["reduce"] == "torch.float32"


@pytest.mark.parametrize("kind", job.CASES)
def test_a_training_that_adopts_goes_on_as_if_it_were_the_same_bit_by_bit(two, kind):
    seen = two[kind]
    assert seen["adopted"] == 3
    assert (seen["later"], seen["later_after"]) == (seen["steps"][3:], seen["after"])
    assert seen["unadopted"] != seen["steps"][3:4], "the test would notice"


@pytest.mark.parametrize("kind", job.CASES)
def test_every_rank_writes_its_files_of_a_policy(two, kind):
    count, names = two[kind]["files"]
    assert count > 1 and len(names) == count + 1 and names[-1].endswith(".index.json")


def test_another_number_of_ranks_at_another_stage_adopts_the_same_optimizer(base, two, out, tmp_path):
    (alone,) = run_ranks(1, base, tmp_path / "one", out, script="state_ranks.py")
    for steps in alone["adopted"].values():
        for step, expected in zip(steps, two["zero_1"]["steps"][3:], strict=True):
            assert step == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_checkpoint_that_is_being_written_leaves_the_one_before_valid(two):
    seen = two["behind"]
    assert seen["meanwhile"] == ["step_000001"] and seen["then"] == ["step_000002", "step_000001"]
    assert seen["resumed"] == [2, {"round": 7}] and seen["same"], (
        "the copy is of its step, whatever came after"
    )


def test_a_checkpoint_that_cannot_be_written_is_an_error_at_the_fence(two):
    assert two["behind"]["error"] == "No space left on device"


def test_a_split_reference_says_what_a_whole_one_says(two):
    assert two["reference"]["gap"] < 1e-6


def test_weights_are_laid_out_by_their_sizes_alone():
    from serl.engines.export import layout

    assert layout({"a": 5, "b": 5}, 10) == {"model.safetensors": ["a", "b"]}
    files = layout({"a": 5, "b": 6, "c": 20, "d": 1}, 10)
    assert list(files.values()) == [["a"], ["b"], ["c"], ["d"]]
    assert next(iter(files)) == "model-00001-of-00004.safetensors"


def test_slices_are_read_where_they_lie(tmp_path):
    from serl.engines.slices import Slices, write_slices

    matrix, half = torch.randn(7, 5), torch.randn(9).bfloat16()
    size, digest = write_slices(tmp_path / "model.safetensors", {"m": matrix, "h": half})
    data = (tmp_path / "model.safetensors").read_bytes()
    import hashlib

    from safetensors.torch import load_file

    assert (size, digest) == (len(data), hashlib.sha256(data).hexdigest())
    assert torch.equal(load_file(tmp_path / "model.safetensors")["m"], matrix)
    slices, part = Slices(tmp_path), torch.empty(11)
    slices.read("m", 13, part)
    assert (
        torch.equal(part, matrix.view(-1)[13:24])
        and slices.shape("m") == (7, 5)
        and slices.shape("x") is None
    )
    slices.read("h", 0, part[:9])
    assert torch.equal(part[:9], half.float())
