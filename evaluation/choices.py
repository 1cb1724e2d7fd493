"""Questions with lettered options as one text, and back: the options stand below the question, a line each.

A model that writes such a question may write its options on lines or in one line, `A. x`, `A) x` or `(A) x`;
they are found as the letters follow each other, so that an initial or an article is no option.
"""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from evaluation.forms import MARKUP
from evaluation.normal import normalise

MAX_OPTIONS = len(ascii_uppercase)
_MARK = re.compile(r"(?:(?<=\s)|^)[*_]{0,2}\(?([A-Z])[.):][*_]{0,2}(?=\s)")
_LINE = re.compile(r"^([A-Z])\. ", re.MULTILINE)


def listed(question: str, options: Sequence[str]) -> str:
    """The question as it is asked: what `parted` takes apart again."""
    lines = [
        f"{letter}. {' '.join(option.split())}"
        for letter, option in zip(ascii_uppercase, options, strict=False)
    ]
    return "\n".join([question.strip(), *lines])


def parted(text: str) -> tuple[str, tuple[str, ...]]:
    """The question and its options; none where the text does not end in two or more, lettered from A on."""
    for pattern in (_LINE, _MARK):
        marks = list(pattern.finditer(text))
        starts = [i for i, mark in enumerate(marks) if mark[1] == "A"]
        if starts:
            run = _in_order(marks[starts[-1] :])
            if len(run) > 1 and (pattern is _MARK or len(run) == len(marks) - starts[-1]):
                bounds = [mark.start() for mark in run[1:]] + [len(text)]
                options = (text[m.end() : end].strip(" \t\n;,*") for m, end in zip(run, bounds, strict=True))
                return text[: run[0].start()].strip(), tuple(" ".join(option.split()) for option in options)
    return text.strip(), ()


def unlettered(option: str, place: int) -> str:
    """An option without the letter of its place, where it begins with that: `B) 5` is `5`."""
    found = _MARK.match(option)
    return option[found.end() :].strip() if found and found[1] == ascii_uppercase[place] else option


def letter_for(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the one option whose text an answer is; None where none is, or several are."""
    key = _key(answer)
    same = [letter for letter, option in zip(ascii_uppercase, options, strict=False) if _key(option) == key]
    return same[0] if key and len(same) == 1 else None


def distinct(options: Sequence[str]) -> bool:
    """Whether each option says something, and no two the same."""
    keys = [_key(option) for option in options]
    return all(keys) and len(set(keys)) == len(keys)


def _key(text: str) -> str:
    return " ".join(MARKUP.sub(r"\1", normalise(text)).split()).casefold()


def _in_order(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The first A, then the first B after it, and so on."""
    run: list[re.Match[str]] = []
    for mark in marks:
        if len(run) < MAX_OPTIONS and mark[1] == ascii_uppercase[len(run)]:
            run.append(mark)
    return run
