"""The final answer of a response: what a model says its answer is, taken from the response alone, and how
plainly it says so.

A box is the plainest, then a phrase that announces an answer, then a tag around it; the last number or
formula of a text is only a guess that published graders make, and no vote should count it. Thoughts are never
read. One pass over the text, whatever it contains.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal

from evaluation import announced, boxes
from evaluation.normal import MAX_ANSWER_CHARS, normalise
from evaluation.structure import outline
from evaluation.thinking import DELIMITERS, spoken

Level = Literal["boxed", "announced", "tagged", "last"]
LEVELS: tuple[Level, ...] = ("boxed", "announced", "tagged", "last")
SURE: tuple[Level, ...] = ("boxed", "announced", "tagged")
"""The levels at which a model says itself what its answer is: those that vote and earn."""

_TAG = re.compile(
    r"<(?P<slash>/?)(?:final[_ ]?)?answer>|\[(?P<bracket>/?)(?:FINAL[_ ])?ANSWER\]", re.IGNORECASE
)
_LETTER_ANSWER = re.compile(
    r"(?:[*$ ]|\\text(?![a-z])){0,4}(?:\\(?:text|textbf|mathrm|mathbf|mbox) ?\{ ?)?(?:\(([A-Z])\)"
    r"|([A-Z])(?:[).:]|[ }*$]*$)|(?:option|choice) \(?([A-Z])\b)",
    re.IGNORECASE,
)
_FORMULA = re.compile(
    r"\$\$([^$]{1,1000})\$\$|\$([^$\n]{1,1000})\$"
    r"|\\\(((?:[^\\\n]|\\(?![()])){1,1000})\\\)|\\\[((?:[^\\]|\\(?![\[\]])){1,1000})\\\]"
)
_PROSE = re.compile(r"(?<![\\{A-Za-z])[A-Za-z]{3,}(?: |$)")
"""Words between dollar signs, or space beside them: two prices, not a formula."""
_NUMBER = re.compile(
    r"(?<![\w./:^])(?<![A-Za-z)\]}|]-)(?:(?<![)\]])[-+])?(?:\\?[$\u20ac\u00a3])?"
    r"(\d{1,3}(?:,\d{3}){1,6}(?![\d,])"
    r"|\d+)(\.\d+)?(?:[/:]\d+)?(?:e[-+]?\d+)?%?(?![\w^])"
)
_PROSE_WORD = re.compile(r"(?<![\\{A-Za-z])(?!and\b|or\b)[A-Za-z]{3,}")
_TAIL_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An answer as it was written, and how plainly it was said to be the answer."""

    text: str
    level: Level


def read(
    response: str,
    *,
    levels: Collection[Level] = LEVELS,
    finished: bool = True,
    thinking: Sequence[tuple[str, str]] = DELIMITERS,
) -> Reading | None:
    """The final answer of a response at the plainest of the levels, or None. What was cut off (not
    `finished`) is never guessed at.
    """
    text = spoken(response, thinking).text
    box = boxes.last(text) if "boxed" in levels else None
    phrase = announced.announced(text) if "announced" in levels else None
    if box and phrase and phrase.start >= box.end and _says_more(phrase.text, box.text):
        box = None
    if box:
        return _reading(box.text, "boxed")
    if phrase:
        return _reading(phrase.text, "announced")
    inside = tagged(text, finished) if "tagged" in levels else None
    if inside:
        return _reading(inside, "tagged")
    last = _last(text[-_TAIL_CHARS:]) if "last" in levels and finished else None
    return _reading(last, "last") if last else None


def extract(response: str) -> str | None:
    """The final answer that a response names as such, or None: at any level but the last."""
    reading = read(response, levels=SURE)
    return reading and reading.text


def letter_of(answer: str, num_choices: int) -> str | None:
    """The letter that an answer to a question with choices names (`C`, `(C)`, `C. 5`, `\\text{C}`), or None
    if it names none.
    """
    found = _LETTER_ANSWER.match(answer.strip())
    letter = found and next(group for group in found.groups() if group)
    return letter if letter and letter in tuple(ascii_uppercase[:num_choices]) else None


def same(a: str, b: str) -> bool:
    """Whether two answers mean the same. Without any time limit: for worker processes and experiments; others
    use `Verifier`.
    """
    from evaluation import equivalence  # here, because it loads the computer algebra

    return equivalence.same(a, b)


def _reading(text: str, level: Level) -> Reading | None:
    """An answer of more than `MAX_ANSWER_CHARS` characters is none."""
    return Reading(text=text, level=level) if len(text) <= MAX_ANSWER_CHARS else None


def _says_more(announced: str, boxed: str) -> bool:
    """Whether an announcement has what is in the box and more: its sign, its base, or the other solutions;
    more words are not more.
    """
    if max(len(announced), len(boxed)) > MAX_ANSWER_CHARS:
        return False
    ours, theirs = (normalise(text) for text in (announced, boxed))
    if ours == theirs or _PROSE_WORD.search(ours):
        return False
    shape, known = outline(ours), outline(theirs)
    if shape is None or shape.kind not in ("list", "set", "union"):
        at = ours.find(theirs)
        return (
            at >= 0
            and known is None
            and _apart(ours[:at][-1:], theirs[:1])
            and _apart(ours[at + len(theirs) :][:1], theirs[-1:])
        )
    items = {part for whole in shape.parts for part in (whole, _right(whole))}
    wanted = known.parts if known and known.kind == shape.kind else (theirs,)
    return len(shape.parts) > len(wanted) and all(part in items or _right(part) in items for part in wanted)


def _right(part: str) -> str:
    return part.rpartition("=")[2].strip()


def _apart(a: str, b: str) -> bool:
    """Whether two characters side by side belong to different numbers or names."""
    return not (a.isalnum() or a == ".") or not (b.isalnum() or b == ".")


def tagged(text: str, finished: bool) -> str | None:
    """What stands in the last answer tag; one that is never closed holds the rest, where the response ended
    by itself.
    """
    content, begin = None, None
    for tag in _TAG.finditer(text):
        closing = tag["slash"] or tag["bracket"]
        if closing and begin is not None:
            content, begin = text[begin : tag.start()], None
        elif not closing:
            begin = tag.end()
    if begin is not None and finished:
        content = text[begin:]
    content = (content or "").strip()[: MAX_ANSWER_CHARS + 1]
    return (announced.said(content.lstrip("* ")) if content else None) or None


def _last(text: str) -> str | None:
    """The last formula or number of a text, whichever ends later."""
    formula = number = None
    for found in _FORMULA.finditer(text):
        inside = next(group for group in found.groups() if group is not None)
        prices = found[2] is not None and inside != inside.strip()
        if not prices and not _PROSE.search(inside.strip()):
            formula = (found.end(), inside.strip())
    for found in _NUMBER.finditer(text):
        number = (found.end(), found[0].lstrip("+").replace("$", "").replace("\\", "").strip("\u20ac\u00a3"))
    ends = [end for end in (formula, number) if end and any(map(str.isalnum, end[1]))]
    return max(ends)[1] if ends else None
