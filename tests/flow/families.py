"""Tiny models of families as people have them, which know a few lists of questions, and answers to them, by heart."""

import json
import random
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from serl.engines.model import load_tokenizer, save_model
from serl.engines.tokenizer import build_tokenizer
from serl.randomness import rng_of

SHAPE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GEMMA = {"query_pre_attn_scalar": 32, "sliding_window": 64}
FAMILIES: dict[str, tuple[type, dict]] = {
    "llama, heads that share keys": (transformers.LlamaConfig, {"num_key_value_heads": 1}),
    "qwen2, tied": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"tie_word_embeddings": False}),
    "gemma3, sliding windows": (
        transformers.Gemma3TextConfig,
        GEMMA | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "mistral, a sliding window": (transformers.MistralConfig, {"sliding_window": 64}),
    "gemma2, capped": (
        transformers.Gemma2Config,
        GEMMA | {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    ),
    "granite, rescaled": (
        transformers.GraniteConfig,
        {"logits_scaling": 2.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
    ),
    "phi3": (transformers.Phi3Config, {}),
    "olmo2": (transformers.Olmo2Config, {}),
}
KINDS = (
    ("Ann", "apples", "market"), ("Bob", "boats", "harbour"), ("Cleo", "clouds", "valley"),
    ("Dora", "dogs", "park"), ("Emil", "eggs", "kitchen"), ("Finn", "frogs", "pond"), ("Gus", "gates", "farm"),
    ("Hugo", "hats", "theatre"), ("Ida", "icicles", "roof"), ("Jon", "jars", "cellar"),
)  # fmt: skip
FORMS = ("How many {1} does {0} count near the {2}?", "{0} leaves the {2} with which number of {1}?")
QUESTIONS = [form.format(*words) for words in KINDS for form in FORMS]
SEEDS = QUESTIONS[:6]
OPENING, PLAIN = "Questions:", "Q: {question}\nA:"


def answer(question: str) -> str:
    return f" It is \\boxed{{{len(question) % 7}}}."


def documents(seed: int) -> list[str]:
    """Lists as `propose` asks for them, and answers as `respond` does."""
    rng = rng_of(seed, "families")
    lists = []
    for _ in range(40):
        items = rng.sample(QUESTIONS, 6)
        lists.append("\n".join([OPENING, *(f"{i}. {q}" for i, q in enumerate(items, 1))]))
    return lists + [PLAIN.replace("{question}", q) + answer(q) for q in QUESTIONS]


def make_family(folder: Path, family: str) -> None:
    """A model folder: weights in several files, two tokens more than its tokenizer was built with, and several
    ends of text.
    """
    config, own = FAMILIES[family]
    build_tokenizer(documents(0), 400, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|done|>"]})
    made = config(**SHAPE | {"vocab_size": len(tokenizer)} | own)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="sdpa")
        _learn_by_heart(lm, tokenizer)
    lm.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|done|>")]
    save_model(lm, tokenizer, dict(lm.named_parameters()), torch.float32, folder)
    (folder / "model.safetensors").unlink()
    lm.save_pretrained(folder, max_shard_size="150KB")
    assert len(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]) > 1


def _learn_by_heart(lm: PreTrainedModel, tokenizer) -> None:
    texts = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in documents(0)]
    adam, order = torch.optim.AdamW(lm.parameters(), lr=3e-3), random.Random(0)
    for _ in range(250):
        batch = order.sample(texts, 12)
        width = max(map(len, batch))
        ids = torch.tensor([t + [0] * (width - len(t)) for t in batch])
        labels = ids.masked_fill(torch.arange(width) >= torch.tensor([[len(t)] for t in batch]), -100)
        adam.zero_grad()
        loss = lm(input_ids=ids, labels=labels).loss
        loss.backward()
        adam.step()
