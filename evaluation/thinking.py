"""What a model says aloud, and what it only thinks: text between thinking delimiters is never read for an
answer.
"""

import re
from collections.abc import Sequence
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


@lru_cache(maxsize=16)
def _marks(delimiters: Delimiters) -> re.Pattern[str]:
    if not delimiters:
        return re.compile(r"(?!)")
    opening, closing = ("|".join(re.escape(pair[side]) for pair in delimiters) for side in (0, 1))
    return re.compile(f"(?P<opening>{opening})|(?P<closing>{closing})")
