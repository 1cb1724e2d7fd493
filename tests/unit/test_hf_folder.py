"""A model folder is refused with the name of the file that is wrong, before anything heavy is imported."""

import json
import subprocess
import sys

import pytest

from serl.hf_folder import validate_model_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    return tmp_path


def shard(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    (folder / "m-1.safetensors").write_bytes(b"x")


def test_a_complete_folder_passes(folder):
    validate_model_folder(folder)


def test_a_complete_sharded_folder_passes(folder):
    shard(folder)
    (folder / "m-2.safetensors").write_bytes(b"x")
    validate_model_folder(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: missing or empty"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: expected a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "no key model_type"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer; add one of tokenizer.json"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights; expected model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "no weights"),
        (shard, "missing or empty: m-2.safetensors"),
    ],
)
def test_what_is_missing_is_named(folder, harm, message):
    harm(folder)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        validate_model_folder(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such model folder"):
        validate_model_folder(tmp_path / "nowhere")


def test_validation_needs_no_torch():
    code = "import sys, serl.hf_folder, serl.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
