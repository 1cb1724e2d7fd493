"""What a model says aloud, and what it only thinks: text between thinking delimiters is never read for an
answer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

Delimiters = tuple[tuple[str, str], ...]
DELIMITERS: Delimiters = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>",
    "</reasoning>"),
    ("[THINK]", "[/THINK]"), ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<seed:think>",
    "</seed:think>"), ("◁think▷", "◁/think▷"),
)  # fmt: skip
"""What public reasoning models put around their thoughts; a run may name others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A response without its thoughts; `thought_chars` were thought, and `unfinished` is a thought that never
    ended.
    """

    text: str
    thought_chars: int
    unfinished: bool


def spoken(response: str, delimiters: Sequence[tuple[str, str]] = DELIMITERS) -> Spoken:
    """What stands outside all thoughts. An end without a beginning ends a thought that the prompt began."""
    kept: list[str] = []
    opened, at = False, 0
    for mark in _marks(tuple(delimiters)).finditer(response):
        if mark.lastgroup == "opening":
            if not opened:
                kept.append(response[at : mark.start()])
            opened = True
        else:
            if not opened:
                kept.clear()
            opened, at = False, mark.end()
    if not opened:
        kept.append(response[at:])
    text = "".join(kept)
    return Spoken(text=text, thought_chars=len(response) - len(text), unfinished=opened)


def thought_counts(
    responses: Iterable[tuple[str, int]], delimiters: Sequence[tuple[str, str]] = DELIMITERS
) -> dict[str, float]:
    """Of responses with their numbers of tokens: how many have thoughts, how many of these never end, and how
    many of all tokens are thought, as many as their share of the characters. Empty where nobody thinks.
    """
    thoughts = unfinished = num_tokens = 0
    thought_tokens = 0.0
    for text, tokens in responses:
        said = spoken(text, delimiters)
        thoughts += said.thought_chars > 0
        unfinished += said.unfinished
        num_tokens += tokens
        thought_tokens += tokens * said.thought_chars / max(1, len(text))
    found = {"thoughts": thoughts, "unfinished_thoughts": unfinished}
    return found | {"thought_tokens": round(thought_tokens), "tokens": num_tokens} if thoughts else {}


@lru_cache(maxsize=16)
def _marks(delimiters: Delimiters) -> re.Pattern[str]:
    if not delimiters:
        return re.compile(r"(?!)")
    opening, closing = ("|".join(re.escape(pair[side]) for pair in delimiters) for side in (0, 1))
    return re.compile(f"(?P<opening>{opening})|(?P<closing>{closing})")
