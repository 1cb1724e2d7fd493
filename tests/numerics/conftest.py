"""A Llama small enough to differentiate in milliseconds, and samples of uneven lengths."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from serl.learning.batch import Sample

VOCAB = 40


def small_llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    return small_llama()


@pytest.fixture
def samples() -> list[Sample]:
    """Eight samples with every column a policy loss reads; old and reference log-probabilities near those of an untrained model."""
    g = torch.Generator().manual_seed(1)
    made = []
    for num_prompt, num_response in [(3, 9), (5, 2), (1, 14), (4, 7), (2, 1), (6, 11), (3, 5), (2, 8)]:
        old_T = -3.5 + 0.5 * torch.randn(num_response, generator=g)
        column = {
            "weight": torch.ones(num_response),
            "advantage": torch.randn(num_response, generator=g),
            "old_logp": old_T,
            "ref_logp": old_T + 0.1 * torch.randn(num_response, generator=g),
        }
        token_L = torch.randint(0, VOCAB, (num_prompt + num_response,), generator=g)
        made.append(Sample(token_L=token_L, num_prompt=num_prompt, column=column))
    return made
