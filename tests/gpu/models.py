"""What is checked on: Llamas of random weights, made in seconds where they are used, and random samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from serl.config.training import Optimizer, Training
from serl.engines.packed import attention
from serl.engines.tokenizer import BOS, EOS, PAD
from serl.learning.batch import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the checks run, and how small; `anatomy` is a folder for profiles, if they are wanted."""

    device: Literal["cpu", "cuda"]
    small: bool
    root: Path
    anatomy: Path | None = None

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device == "cpu" else torch.bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A Llama by its numbers; `std` is large where probabilities must differ for a wrong one to show."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int = 512
    tied: bool = True
    std: float = 0.04

    def num_weights(self) -> int:
        """Weights that a token passes through in matrix products, the output layer among them."""
        head = self.hidden // self.heads
        attend = self.hidden * head * (2 * self.heads + 2 * self.kv_heads)
        layer = attend + 3 * self.hidden * self.intermediate
        return self.layers * layer + self.hidden * self.vocabulary


SHAPES = {
    "tiny": Shape(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=128, std=0.1),
    "head 32, tied": Shape(hidden=256, layers=4, heads=8, kv_heads=8, intermediate=512),
    "head 64, untied": Shape(hidden=512, layers=4, heads=8, kv_heads=4, intermediate=1024, tied=False),
    "head 128, tied": Shape(hidden=1024, layers=4, heads=8, kv_heads=4, intermediate=2048),
    # the shapes of LLaMA-3.2-1B and LLaMA-3.2-3B
    "1.2B": Shape(
        hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocabulary=128256, std=0.02
    ),
    "3.2B": Shape(
        hidden=3072, layers=28, heads=24, kv_heads=8, intermediate=8192, vocabulary=128256, std=0.02
    ),
}


def llama_config(shape: Shape, place: Place) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048, initializer_range=shape.std, tie_word_embeddings=shape.tied,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
        attn_implementation=attention(place.dtype, torch.device(place.device)),
    )  # fmt: skip


def random_llama(shape: Shape, seed: int, place: Place) -> PreTrainedModel:
    """In float32, born on the device that it is for."""
    torch.manual_seed(seed)
    with torch.device(place.device):
        return LlamaForCausalLM(llama_config(shape, place))


def make_tokenizer(vocabulary: int):
    """A byte-level tokenizer of as many tokens as the model has: 3 special ones, bytes, made-up words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [PAD, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"Ġword{i}" for i in range(vocabulary - len(words))]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def training(zero: int, **changes: object) -> Training:
    """Settings of a training; `changes` are fields of `Training`."""
    optimizer = Optimizer(lr=1e-3, warmup=0.0, schedule="constant")
    usual = {"optimizer": optimizer, "zero": zero, "compile": False}
    return Training(**usual | changes)


def make_prompts(num: int, length: int, vocabulary: int) -> list[list[int]]:
    """Prompts of random tokens, no two alike, of lengths around `length`."""
    g = torch.Generator().manual_seed(3)
    lengths = [max(1, length - 3 * (i % 5)) for i in range(num)]
    return [[1, *torch.randint(3, vocabulary, (n - 1,), generator=g).tolist()] for n in lengths]


def make_samples(lengths: Sequence[tuple[int, int]], vocabulary: int) -> list[Sample]:
    """Samples of (prompt, response) tokens with the columns of a policy loss, drawn near a uniform model."""
    g = torch.Generator().manual_seed(2)
    uniform = -torch.log(torch.tensor(float(vocabulary)))
    samples = []
    for num_prompt, num_response in lengths:
        column = {
            "weight": torch.ones(num_response),
            "advantage": 0.5 + torch.randn(num_response, generator=g),
            "old_logp": uniform + 0.05 * torch.randn(num_response, generator=g),
        }
        token_L = torch.randint(3, vocabulary, (num_prompt + num_response,), generator=g)
        samples.append(Sample(token_L=token_L, num_prompt=num_prompt, column=column))
    return samples


def uneven(num: int) -> list[tuple[int, int]]:
    """Lengths of prompts and responses that no two samples share."""
    return [(4 + 3 * i % 17, 3 + 7 * i % 53) for i in range(num)]
