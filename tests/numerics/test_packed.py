"""Samples that lie end to end in one row are computed as if each were alone."""

import pytest
import torch
from test_model import assert_same_step, gradients, plain_logprobs
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

from serl.engines.model import TokenLogProbs
from serl.engines.packed import PACKED, attention
from serl.learning.batch import collate

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES = {
    "each head its own keys": LlamaConfig(**SMALL, num_key_value_heads=4),
    "heads share keys": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "a window": MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=3),
}


def made(config, how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation=how)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_samples_have_the_values_and_gradients_of_samples_alone(family, samples):
    plain, packed = (made(FAMILIES[family], how) for how in ("sdpa", PACKED))
    with torch.no_grad():
        told = TokenLogProbs(packed)(collate(samples, packed=True))
        assert (told - plain_logprobs(plain, samples)).abs().max() < 1e-5
    apart, together = (
        gradients(plain, samples, [range(8)]),
        gradients(packed, samples, [range(8)], packed=True),
    )
    assert_same_step(apart, together, tolerance=1e-5)


def test_a_sample_does_not_see_its_neighbours(samples):
    lm = made(FAMILIES["heads share keys"], PACKED)
    forward, alone = TokenLogProbs(lm), collate(samples[3:4], packed=True)
    with torch.no_grad():
        between = forward(collate(samples[2:5], packed=True)).split([s.num_response for s in samples[2:5]])[1]
        assert torch.equal(between, forward(alone)) or (between - forward(alone)).abs().max() < 1e-6


def test_a_pass_without_samples_has_gradients_of_zero(samples):
    _, gradient = gradients(made(FAMILIES["a window"], PACKED), samples, [(), range(8)], packed=True)
    _, without = gradients(made(FAMILIES["a window"], PACKED), samples, [range(8)], packed=True)
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(gradient, without, strict=True))


@pytest.mark.parametrize(
    "dtype, packing, how",
    [
        (torch.float32, None, "sdpa"), (torch.bfloat16, None, "sdpa"),
        (torch.float32, True, PACKED), (torch.bfloat16, False, "sdpa"),
    ],
)  # fmt: skip
def test_cpus_pad_unless_told_otherwise(dtype, packing, how):
    assert attention(dtype, torch.device("cpu"), packing) == how
