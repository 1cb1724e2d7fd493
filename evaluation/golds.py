"""Gold answers: how each benchmark's published answer becomes the one that responses are compared with, and
what kind it declares itself.

A rule is pure and idempotent, so it fits the raw published file as well as one that has been through it
before.
"""

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase
from typing import Literal

from evaluation import boxes
from evaluation.forms import clock, lasting, wordy
from evaluation.normal import normalise
from evaluation.notation import number_system, trimmed
from evaluation.structure import outline, split

Rule = Literal[
    *("as_is", "after_hashes", "last_box", "no_parentheses", "no_dollars", "college_math", "letter", "index")
]
Declared = Literal[
    "number",
    "expression",
    "relation",
    "list",
    "set",
    "pair",
    "interval",
    "union",
    "matrix",
    "cases",
    "words",
    "time",
    "series",
]

_LEADS = re.compile(
    r"^(?:(?:the |here |in this case )?(?:general |unique )?solutions? (?:is|are)|\\bullet|ciphertext"
    r"|f\^\{\\prime\}-)\b ?:?\s*|^\\(?:quad|bullet) ?",
    re.IGNORECASE,
)
_VERDICT = re.compile(r"^(yes|no)[.,:;](?=\s|$)[^=]*$", re.IGNORECASE | re.DOTALL)
_RESTATED = re.compile(r"\A.*[<>\d]\s*:\s*(?=[\[(\\])", re.DOTALL)
_APPROXIMATED = re.compile(r"\s{0,8}\\approx\s{0,8}-?[\d.,]+(?=\s*(?:$|\\?[a-z]))")
_BRACKETED = re.compile(r"^\[([^\[\]()]*=[^\[\]()]*)\]$")
_RELATIONS = re.compile(r"[=<>]|\\(?:neq?|leq?|geq?|lt|gt|equiv|in)(?![a-zA-Z])")
_EQUALS = re.compile(r"=")
_COMPUTED = re.compile(r"\\begin|^\\lim|^\(?i\^|\\cos.*\d$")
_NAME = re.compile(r"[\\A-Za-z]")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DIGITS = re.compile(
    r"[-+]?[\d., /]+|[-+]?\d* ?\\frac ?\{?-?\d+\}? ?\{?-?\d+\}?"
    r"|[-+\d.,/ ]*(?:e[-+]?\d+|\\times ?10\^\{?-?\d+\}?)",
    re.IGNORECASE,
)
_DOTS = re.compile(r"\\[cl]?dots(?![a-zA-Z])|\.\.\.")


def apply(rule: Rule, published: str) -> str:
    """The gold answer that a rule makes of a published one."""
    return _RULES[rule](published.strip()).strip()


def guessed(published: Sequence[str]) -> Rule:
    """The rule that fits how all published answers of a source are written."""
    if published and all("####" in text for text in published):
        return "after_hashes"
    return "last_box" if published and all(boxes.last(text) for text in published) else "as_is"


def declared(gold: str) -> Declared:
    """What kind of answer a gold is by the look of it, without reading it: what a reader must then find it to
    be.
    """
    whole = normalise(gold)
    key = trimmed(whole)
    if clock(key):
        return "time"
    if wordy(key):
        return "words"
    if lasting(whole):
        return "number"
    if _DOTS.search(key) or r"\sum" in key:
        return "series"
    if number_system(key):
        return "interval"
    shape = None if _GROUPED.fullmatch(key) else outline(key)
    if shape is None:
        return (
            "relation"
            if len(split(key, _RELATIONS)) > 1
            else "number"
            if _DIGITS.fullmatch(key)
            else "expression"
        )
    match shape.kind:
        case "list" | "matrix" | "cases" | "union" | "set":
            return shape.kind
        case "such that":
            return "set"
        case "range of unions":
            return "union"
        case "tuple":
            return "pair"
        case "[]" | "(]" | "[)":
            return "interval"


ALLOWED: dict[Declared, tuple[str, ...]] = {
    "number": ("number", "named"),
    "expression": (
        "number",
        "expression",
        "symbolic",
        "list",
        "set",
        "in base",
        "pair",
        "matrix",
        "interval",
    ),
    "relation": ("relation", "named", "interval", "union", "set", "number", "expression"),
    "list": ("list", "set", "union", "interval", "number", "expression", "named", "pair"),
    "set": ("set", "list", "interval", "union", "named", "number", "expression"),
    "pair": ("pair", "set"),
    "interval": ("interval", "pair"),
    "union": ("union", "interval", "named"),
    "matrix": ("matrix",),
    "cases": ("cases",),
    "words": ("words", "set", "interval", "pair"),
    "time": ("time",),
    "series": ("series", "symbolic", "expression", "number", "named", "list", "set", "relation"),
}
"""What each declared kind may turn out to be: a list of one is its item, a condition is the interval that
solves it.
"""


def _boxed(text: str) -> str:
    box = boxes.last(text)
    return text if box is None else box.text


def _college_math(text: str) -> str:
    """College_math quotes textbooks: lead-ins, an answer given twice, an explanation after yes or no, a
    computation before its result.
    """
    text = _LEADS.sub("", text.replace("$", "")).strip().rstrip(".").strip()
    verdict = _VERDICT.match(text)
    if verdict:
        return verdict[1]
    text = _RESTATED.sub("", text) if text.count(":") == 1 and r"\{" not in text else text
    text = _APPROXIMATED.sub("", text) if not text.startswith(r"\approx") else text
    bracketed = _BRACKETED.match(text)
    text = bracketed[1] if bracketed else text
    sides = [side.strip() for side in split(text, _EQUALS)]
    computed = (
        len(sides) > 1
        and r"\begin{aligned}" not in text
        and (_COMPUTED.search(sides[0]) or not _NAME.search(sides[0]))
    )
    return sides[-1] if computed and sides[-1] else re.sub(r"\n\s*(?=[A-Za-z]_)", ", ", text)


def _no_parentheses(text: str) -> str:
    return re.sub(r"\(.*?\)", "", text)


_RULES: dict[Rule, Callable[[str], str]] = {
    "as_is": lambda text: text,
    "after_hashes": lambda text: text.rpartition("####")[2],
    "last_box": _boxed,
    "no_parentheses": _no_parentheses,
    "no_dollars": lambda text: text.replace("$", ""),
    "college_math": _college_math,
    "letter": lambda text: text.strip("()"),
    "index": lambda text: ascii_uppercase[int(text)] if text.isdecimal() and int(text) < 26 else text,
}
