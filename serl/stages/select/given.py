"""Texts of people as token ids: the question as the policy is asked it, and each answer to its end. Nobody
sampled them: their log-probabilities are 0, and nobody reads these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serl.config.engine import Prompts
from serl.records import Completion, Group, Pair
from serl.text.pairs import Text, TextPair
from serl.text.prompts import question_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenized(text: TextPair | Text, tokenizer: PreTrainedTokenizerBase, prompts: Prompts) -> Pair | Group:
    """A pair, `right` since whoever made it says so; a single answer as the only one of a group."""
    prompt = tuple(question_prompt(tokenizer, prompts, text.question))
    if isinstance(text, Text):
        return Group(
            id=text.id, role="train", question=text.question, gold=None, prompt_ids=prompt,
            completions=(_answer(text.answer, tokenizer),), answers=(None,), labels=(None,), winner=None,
            tie=False, undecided=0, agreement=0.0, margin=0.0, winner_correct=None, rewards=(1.0,),
        )  # fmt: skip
    sides = (_answer(text.better, tokenizer), _answer(text.worse, tokenizer))
    return Pair(
        id=text.id, question=text.question, prompt_ids=prompt, completions=sides, says="given", right=True
    )


def longest(record: Pair | Group) -> int:
    """Tokens of the longest text."""
    return len(record.prompt_ids) + max(len(c.token_ids) for c in record.completions)


def _answer(text: str, tokenizer: PreTrainedTokenizerBase) -> Completion:
    ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    return Completion(token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason="stop")
