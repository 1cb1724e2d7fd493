"""The letter of a choice, read from a response that was asked for in the run's own words;
`mmlu_pro.extract_letter` is the official reading.

A letter counts where something marks it as a choice: a box, an announcement, a tag, brackets or bold type.
The words "A" and "I" do not.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from string import ascii_uppercase

from evaluation import announced, boxes
from evaluation.answers import LEVELS, Level, Reading, tagged
from evaluation.thinking import DELIMITERS, spoken

_FONT = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boxed|fbox)(?![a-z]) ?\{ ?"
_AT = re.compile(
    rf"(?:[\s*_$\"'`:]|{_FONT}){{0,8}}(?:(?:the )?(?:option|choice|letter"
    rf"|answer)\b[\s*:]{{0,4}})?(?:[*_$\"'`]|{_FONT}){{0,4}}"
    r"(?:[(\[] ?(?:\\(?:text|textbf|mathrm|mathbf) ?\{ ?)?(?P<bracketed>[A-Za-z])(?: ?\}| ){0,2}[)\]]"
    r"|(?P<bare>[A-Za-z])(?![A-Za-z0-9'^_=+/<>-]|\\[a-z(]))(?P<after>.{0,12})",
    re.DOTALL | re.IGNORECASE,
)
_ENDS = re.compile(r"[\s}*_$\"'`]{0,4}(?:[).:,;!\]]|$|\n)|[}*_$\"'`]")
"""What closes a letter that stands by itself."""
_GOES_ON = re.compile(r" (?:because|since|as|is|which|with|for|due|based|\(|-|\u2013|\u2014)")
_MANY = re.compile(
    r"[\s}*$)]{0,4}(?:,|and|or|&) ?(?:and |or )?[\s*$(\\]{0,4}(?:text ?\{ ?)?[A-Z](?![A-Za-z])"
)
"""Another letter behind the first: several choices are no answer to a question with one."""
_IS_RIGHT = re.compile(
    r"(?:\b(?:option|choice|answer)\s{1,2}[(*]{0,3}([A-Za-z])\b|[(*]{1,3}([A-Z])[)*]{1,3}"
    r"|\b([B-HJ-Z]))[)*:]{0,3}\s{1,2}(?:is|must be)\s{1,2}(?:the )?(?:most )?(?:correct|right|best)\b"
    r"|\b(?:must|should|would|has to) be\s{1,2}(?:option|choice)\s{1,2}[(*]{0,3}([A-Za-z])(?=[)*.,;\n]|$)"
    r"|\b(?:choose|select|pick|go with|going with)\s{1,2}(?:(?:option|choice"
    r"|answer)\s{1,2})?[(*]{0,3}([A-Z])(?=[)*.,;\n]|$)",
    re.IGNORECASE,
)
_MARKED = re.compile(
    r"\(([A-Z])\)|\*\*\(?([A-Z])[).:]?\s?\*\*|\b(?:[Oo]ption|[Cc]hoice) ([A-Z])\b|^\s{0,3}([A-Z])[).]?\s*$",
    re.MULTILINE,
)


def read_letter(
    response: str,
    num_choices: int,
    *,
    levels: Collection[Level] = LEVELS,
    finished: bool = True,
    thinking: Sequence[tuple[str, str]] = DELIMITERS,
) -> Reading | None:
    """The letter that a response chooses, at the plainest of the levels; None without one, and where it is
    beyond the choices.
    """
    text = spoken(response, thinking).text
    for level, letters in _readings(text, finished):
        letter = next(letters, None) if level in levels else None
        if letter:
            return (
                Reading(text=letter, level=level) if letter in tuple(ascii_uppercase[:num_choices]) else None
            )
    return None


def letter_at(text: str) -> str | None:
    """The letter that a text begins with (`C`, `(c)`, `**C**`, `\\text{C}`, `option C`, `C. 5`), or None
    where it is a word of a sentence.
    """
    found = _AT.match(text)
    if found is None or _MANY.match(found["after"]):
        return None
    if found["bracketed"]:
        return found["bracketed"].upper()
    letter, after = found["bare"], found["after"]
    if _ENDS.match(after) or (letter.isupper() and (_GOES_ON.match(after) or letter not in "AI")):
        return letter.upper()
    return None


def _readings(text: str, finished: bool) -> Iterator[tuple[Level, Iterator[str]]]:
    yield "boxed", _boxed(text)
    yield "announced", _announced(text)
    yield "tagged", (letter for letter in [letter_at(tagged(text, finished) or "")] if letter)
    yield "last", _last(text) if finished else iter(())


def _boxed(text: str) -> Iterator[str]:
    box = boxes.last(text)
    letter = letter_at(box.text) if box else None
    if letter:
        yield letter


def _announced(text: str) -> Iterator[str]:
    """The letter behind the last announcement that has one, or before the last "is correct", whichever stands
    later.
    """
    found = [(start, letter) for start, tail in announced.tails(text) if (letter := letter_at(tail))][:1]
    for right in _IS_RIGHT.finditer(text):
        found.append((right.start(), next(group for group in right.groups() if group).upper()))
    if found:
        yield max(found)[1]


def _last(text: str) -> Iterator[str]:
    last = None
    for last in _MARKED.finditer(text):
        pass
    if last:
        yield next(group for group in last.groups() if group)
