"""An answer as steps: where they begin, as positions in its tokens. Text is read to find them, and never
encoded again.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol, assert_never

from serl.config.objectives import Lines, Pattern, Sentences, Splitter

_NEWLINES = re.compile(r"\n+")
_DISPLAYED = re.compile(r"(?:\$\$.+?\$\$|\\\[.+?\\\])[.,;]?", re.DOTALL)
_FORMULA = re.compile(r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\$(?=\S)[^$\n]+(?<=\S)\$", re.DOTALL)
_SENTENCE = re.compile(r"[.!?](?=\s)")
_NUMBERING = re.compile(r"^[ \t]*\d+\.(?=[ \t])", re.MULTILINE)


class Decoder(Protocol):
    """The part of a Hugging Face tokenizer that reads tokens."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


class Pieces:
    """The text of each token after the one before it, as far as it adds any; of special tokens there is
    none.
    """

    def __init__(self, tokenizer: Decoder):
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], str] = {}

    def of(self, token_ids: Sequence[int]) -> list[str]:
        pairs = [tuple(token_ids[max(0, i - 1) : i + 1]) for i in range(len(token_ids))]
        return [self._piece(pair) for pair in pairs]

    def _piece(self, pair: tuple[int, ...]) -> str:
        if pair not in self._known:
            self._known[pair] = self.text(pair)[len(self.text(pair[:-1])) :]
        return self._known[pair]

    def text(self, token_ids: Sequence[int]) -> str:
        """What tokens say together."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True) if token_ids else ""


def cuts(pieces: Sequence[str], how: Splitter) -> tuple[int, ...]:
    """The first token of each step, from the text of each token; the first step begins at 0.

    A token in which a step ends belongs to that step whole.
    """
    start_T = [0, *accumulate(map(len, pieces))][: len(pieces)]
    text = "".join(pieces)
    made = [0]
    for cut in sorted({bisect_left(start_T, end) for end in _ends(text, how)}):
        if len(made) == how.most or len(pieces) - cut < how.min_tokens or not text[start_T[cut] :].strip():
            break
        blank = not text[start_T[made[-1]] : start_T[cut]].strip()
        if cut - made[-1] >= how.min_tokens and not blank:
            made.append(cut)
    return tuple(made)


def _ends(text: str, how: Splitter) -> Iterator[int]:
    """Behind the last character of each step, in no order."""
    match how:
        case Lines():
            yield from (m.end() for m in _NEWLINES.finditer(text))
        case Sentences():
            yield from (m.end() for m in _DISPLAYED.finditer(text))
            plain = _NUMBERING.sub(_blank, _FORMULA.sub(_blank, text))
            yield from (m.end() for m in _SENTENCE.finditer(plain))
            yield from (m.end() for m in _NEWLINES.finditer(plain))
        case Pattern():
            yield from (m.end() for m in re.finditer(how.pattern, text))
        case _:
            assert_never(how)


def _blank(match: re.Match[str]) -> str:
    """As long, and without anything that could end a step."""
    return "x" * len(match[0])
