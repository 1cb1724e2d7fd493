"""A model that is made without weights and filled from its files is the one that transformers loads: of each family, tied or not."""

import json

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from serl.config.training import Optimizer, Training
from serl.engines import loading
from serl.engines.model import load_model
from serl.engines.ranks import Ranks
from serl.engines.zero import plan_of

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "head_dim": 16,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": SCALED}),
    "mistral": (MistralForCausalLM, MistralConfig, {}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {}),
}
ALONE = Ranks(rank=0, size=1, device=torch.device("cpu"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_hollow_model_that_was_filled_is_the_model(tmp_path, monkeypatch, family, tied):
    model, config, more = FAMILIES[family]
    torch.manual_seed(3)
    model(config(**SMALL | more, tie_word_embeddings=tied)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({}))
    expected = load_model(tmp_path, torch.float32, torch.float32)
    monkeypatch.setattr(loading, "load_model", None)  # it is not read whole
    settings = Training(optimizer=Optimizer(lr=1e-3), zero=0, dtype="float32")
    found = loading.load_frozen(tmp_path, plan_of(settings, ALONE))
    assert type(found) is type(expected) and found.config.to_dict() == expected.config.to_dict()
    assert (found.lm_head.weight is found.model.embed_tokens.weight) == tied
    for (name, a), (_, b) in zip(expected.named_buffers(), found.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    token_BL = torch.arange(40).view(1, 40)
    with torch.no_grad():
        assert torch.equal(expected.eval()(token_BL).logits, found(token_BL).logits)
