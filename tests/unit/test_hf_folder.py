"""A model folder is refused with the name of the file that is wrong, before anything heavy is imported."""

import json
import subprocess
import sys

import pytest

from serl.engines.hf_folder import (
    validate_context,
    validate_model_folder,
    validate_tokens,
    validate_trainable,
)

HEADER = json.dumps(
    {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path


def shard(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})
    )
    (folder / "m-1.safetensors").write_bytes(WEIGHTS)


def test_a_complete_folder_passes(folder):
    validate_model_folder(folder)


def test_a_complete_sharded_folder_passes(folder):
    shard(folder)
    (folder / "m-2.safetensors").write_bytes(WEIGHTS)
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
        (lambda f: (f / "config.json").write_text('{"model_type": 7}'), "no key model_type"),
        (
            lambda f: (f / "config.json").write_text(
                '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'
            ),
            "BertForMaskedLM: not a causal language model",
        ),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json: not valid JSON"),
        (
            lambda f: (f / "tokenizer.json").write_text(POINTER),
            "a Git LFS pointer: fetch the file with `git lfs pull`",
        ),
        (
            lambda f: (f / "model.safetensors").write_text(POINTER),
            "model.safetensors: a Git LFS pointer, not the weights",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(WEIGHTS[:-1]), "cut off, it has"),
        (lambda f: (f / "model.safetensors").write_bytes(WEIGHTS[:40]), "its header cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 100), "its header cannot be read"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}'),
            "no weight_map from weights to files",
        ),
    ],
)
def test_what_is_missing_is_named(folder, harm, message):
    harm(folder)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        validate_model_folder(folder)


@pytest.mark.parametrize(
    ("positions", "enough"),
    [
        ({"max_position_embeddings": 512}, True),
        ({"max_position_embeddings": 511}, False),
        ({"n_positions": 511}, False),
        ({}, True),
        ({"max_position_embeddings": 128, "rope_scaling": {"type": "yarn", "factor": 4.0}}, True),
        (
            {
                "max_position_embeddings": 128,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
                "rope_scaling": None,
            },
            False,
        ),
    ],
)
def test_a_context_that_the_model_does_not_have_is_refused(folder, positions, enough):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | positions))
    if enough:
        validate_context(folder, 512)
    else:
        with pytest.raises(
            ValueError,
            match=r"engine\.max_model_len 512: .*config\.json has .* positions; ask for at most that",
        ):
            validate_context(folder, 512)


def test_a_misspelt_folder_suggests_its_neighbour(folder):
    with pytest.raises(ValueError, match=f"no such model folder; did you mean {folder.name}"):
        validate_model_folder(folder.with_name(folder.name + "s"))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such model folder"):
        validate_model_folder(tmp_path / "nowhere")


def test_validation_needs_no_torch():
    code = "import sys, serl.engines.hf_folder, serl.engines.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ families
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder with a decoder .t5.; choose"),
        ({"model_type": "mine_own", "auto_map": {"AutoModelForCausalLM": "m.M"}}, "code that comes with the model"),
    ],
)
def test_a_family_that_cannot_be_asked_is_refused(folder, config, message):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        validate_model_folder(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "weights in gptq can be scored"),
        ({"model_type": "qwen2", "quantization_config": {"quant_method": "fp8"}}, "weights in fp8"),
        ({"model_type": "qwen2_5_vl", "vision_config": {}}, "vision_config: a model that also reads other than text"),
        ({"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8}, "num_experts = 128: a mixture"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "num_local_experts = 8: a mixture of experts"),
        ({"model_type": "deepseek_v3", "n_routed_experts": 256}, "n_routed_experts = 256: a mixture of experts"),
        ({"model_type": "ernie4_5_moe", "moe_num_experts": 64}, "moe_num_experts = 64: a mixture of experts"),
    ],
)
def test_a_family_that_can_be_asked_and_not_trained_says_so(folder, config, message):
    (folder / "config.json").write_text(json.dumps(config))
    validate_model_folder(folder)
    with pytest.raises(ValueError, match=message):
        validate_trainable(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "granite", "logits_scaling": 8.0},
        {"model_type": "gemma2", "final_logit_softcapping": 30.0},
        {"model_type": "phi3", "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}},
        {"model_type": "gemma3_text", "final_logit_softcapping": None},
    ],
)
def test_a_family_that_can_be_trained_passes(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    validate_model_folder(folder)
    validate_trainable(folder)


def test_an_adapter_says_what_to_merge_it_into(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(ValueError, match="an adapter of some/base, and no model; merge it"):
        validate_model_folder(folder)


def test_a_template_of_tokens_without_a_row_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 480}))
    tokens = [{"id": 480, "content": "<|user|>"}, {"id": 481, "content": "<|unused|>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    validate_tokens(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "<|user|>{{ x }}"}))
    with pytest.raises(ValueError, match=r"uses '<.user.>', which is token 480, and the model has 480"):
        validate_tokens(folder)


def test_a_name_on_the_hub_says_how_to_bring_it_here(tmp_path):
    with pytest.raises(ValueError, match="hf download some-lab/some-model --local-dir .*/some-lab/some-model"):
        validate_model_folder(tmp_path / "some-lab/some-model")
