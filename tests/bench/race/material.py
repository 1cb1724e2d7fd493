"""What both sides of a race are given: a random Llama, and sequences with rewards; neither is imported."""

import argparse
import json
from pathlib import Path

import torch

VOCABULARY, PROMPT, GROUPS, ANSWERS = 512, 32, 4, 16
LR, CLIP, GRAD_CLIP, STD_EPS = 1e-6, 0.2, 1.0, 1e-4
WARM = 2  # steps, or turns, that do not count: what is loaded or built once


def sequences(lengths: str) -> tuple[list[list[int]], list[list[int]], torch.Tensor]:
    """A prompt a group, an answer a sequence, and rewards [groups, answers] of 0 or 1.

    Answers are 224 tokens each (`equal`) or 64 to 384 (`varied`), about as many in all; or 16 to 1,024, most
    of them short (`wide`).
    """
    random = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=random).tolist()

    prompts = [tokens(PROMPT) for _ in range(GROUPS)]
    count = GROUPS * ANSWERS
    chosen = torch.randint(64, 385, (count,), generator=random)
    wide = (16 * 64 ** torch.rand(count, generator=random)).round().int()
    of = {"equal": torch.full((count,), 224), "varied": chosen, "wide": wide}
    answers = [tokens(n) for n in of[lengths].tolist()]
    rewards = (torch.rand(GROUPS, ANSWERS, generator=random) < 0.5).float()
    return prompts, answers, rewards


def make_model(folder: Path) -> None:
    """A random Llama of 2.75 million weights, with a tokenizer of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet),
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bytewise.train_from_iterator(["a"], trainer)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=bytewise, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def arguments() -> argparse.Namespace:
    """Of one side's process."""
    p = argparse.ArgumentParser()
    p.add_argument("lengths", choices=["equal", "varied", "wide"])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--lora", type=int, help="rank of adapters, which alone are trained")
    p.add_argument("--packing", action="store_true", help="of our side")
    return p.parse_args()


def tell(**figures: object) -> None:
    """The last line of a side's output."""
    print(json.dumps(figures), flush=True)
