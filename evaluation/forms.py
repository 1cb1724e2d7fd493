"""The written forms of an answer that need no computer algebra: plain numbers and plain words, of normal
text.

Everything here is pure, bounded by `MAX_ANSWER_CHARS`, and safe on hostile input: nothing is evaluated. Most
answers of arithmetic problems are settled here, in the calling process, without asking a worker.
"""

import re
from fractions import Fraction

from evaluation.intervals import interval
from evaluation.notation import cut
from evaluation.numerals import number
from evaluation.units import MINUTE, UNITS, measured
from evaluation.values import EMPTY, Named, Scalar, Text, Value, in_unit

_MAX_DEPTH = 4
"""So often at most something is taken off an answer before it is read: a text of "for all reals, for all
reals" has no end.
"""
MAX_TEXT_CHARS = 200
"""Longer prose is no answer but a failure to give one."""
APART = re.compile(r"[+-]?[\d.]+(?: [\d.]+)+")
"""Numbers with nothing but space between them are no answer."""
_BASED = re.compile(r"(?:(\d+)|\((\d+)\))_(?:\{(?:\\text\{)?(\w{1,12})\}{1,2}|(\d))")
_BASED_LETTERS = re.compile(r"\(?(?=[A-F]*\d)(?=\d*[A-F])([\dA-F]{1,40})\)?_\{(1[1-6])\}")
"""A number whose digits go beyond nine: `2A_{16}`."""
_UNIT = re.compile(
    r" ?(?:\^\{?\\circ ?\}?|\\(?:text|mathrm|mbox|textrm)\{(?! ?[iejxyztnk] ?\})([^{}\d]*)\}"
    r"|((?:[A-Za-z]{3,}|cm|mm|km|kg|mg|ml|ft|lb|hr)\b[A-Za-z '/-]*))(?:\^\{?\d\}?)?"
)
MARKUP = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox)\{([^{}]*)\}"
)
_CALLED = re.compile(
    r"((?:\\(?:text|textbf|mathrm|mbox) ?\{[A-Za-z .']{1,60}\}"
    r"|[A-Z]?[a-z]{3,20}(?: [a-z]{1,20}){0,6})(?:_(?:\{\w{1,12}\}|\w))?) ?= ?(?=[^=<>]+$)"
)
"""What is asked for, in words, before what it is: `\\text{Area} = 5`."""
_ARTICLE = re.compile(r"(?:an?|the) (?=\w\w)", re.IGNORECASE)
EXCEPT = re.compile(
    r"(?:all |the )?(?:set of )?(?:all )?(?:real numbers|reals)(?: x)?,? (?:except|other than|excluding"
    r"|but not|but|not equal to)(?: for)? (?:x ?= ?)?(.+)",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"\\(?:begin|end|operatorname\*?) ?\{[^{}]*\}(?: ?\{[lcr| ]+\})?|\\[A-Za-z]+")
_LETTERS = re.compile(r"[A-Za-z]+")
ENDLESS = re.compile(r"[+-] ?(?:\\(?:cdots|ldots|dots)(?![a-zA-Z])|\.\.\.)")
_DOTS = re.compile(r"\\[lc]?dots(?![a-zA-Z])|\.\.\.|\u2026")
_CLOCK = re.compile(r"(\d{1,2})((?: ?: ?\d{2}){0,2}) ?(?:\\text\{)? ?([ap])\.? ?m\.?\}?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+) hours?,? (?:and )?(\d+) minutes?", re.IGNORECASE)
_WORDY = re.compile(r"[A-Za-z][A-Za-z' .,:/&!?-]*+(?:\d++(?:st|nd|rd|th)?[A-Za-z' .,:&!?-]*)?")
_BARE_WORD = re.compile(r"(?i:no|max|min|mod|log|sin|cos|tan)|(?!Pi)[A-Z][a-z]+")
_MARKED_WORD = re.compile(r" ?[A-Za-z]{2,}(?: [A-Za-z]+)* ?")
_ALL = frozenset({"all real numbers", "all reals", "the set of all real numbers", "the real numbers"})
_NONE = frozenset(
    {
        "no solution",
        "no solutions",
        "no real solution",
        "no real solutions",
        "there is no solution",
        "empty set",
        "the empty set",
    }
)
_PIECEWISE = re.compile(r"\\\{ ?\\begin|\\begin ?\{cases")
EXTREMUM = re.compile(
    r"\\?((?:local |absolute )?(?:max|min))(?:imum)?(?: point)?s? ?(?:at|when) ?(\\?[a-z]+) ?=(.+)",
    re.IGNORECASE,
)
"""`max at x=7`: a place, under the name of what is there."""
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(rf" ?(?:\\(?:text|mathrm|mbox|textrm)\{{)? ?({'|'.join(_SCALES)})\b", re.IGNORECASE)
_JOINS = frozenset({"and", "or", "to"})
_SHORT = re.compile(r"(?<![^ ])(?:is|it|if|at|of|on|by|as|we|so|he|the|for|are|has|but|not)(?![^ ])")
_MATHEMATICAL = frozenset(
    {
        "pi",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "exp",
    }
    | {
        "lim",
        "max",
        "min",
        "gcd",
        "lcm",
        "mod",
        "det",
        "infty",
        "infinity",
        "inf",
        "frac",
        "binom",
        "and",
        "or",
    }
    | {"theta", "alpha", "beta", "gamma", "lambda"}
)


def plain(key: str, depth: int = 0) -> Value | None:
    """The value of a normalised answer that is a plain number (a unit after it is dropped) or plain words;
    else None.
    """
    for end in _ends(key):
        found = number(key[:end])
        if found is not None:
            return _scaled(found, key[end:])
    digits = _BASED_LETTERS.fullmatch(key)
    if digits:
        return Text(text=f"{digits[1]} in base {digits[2]}")
    based = _BASED.fullmatch(key)
    if based:
        return Named(
            name=f"base {based[3] or based[4]}", value=Scalar(exact=Fraction(int(based[1] or based[2])))
        )
    if clock(key) or lasting(key) is not None:
        return _time(key)
    called = asked_for(key)
    if called:
        value = plain(called[1], depth + 1)
        return value if value is None or isinstance(value, Text) else Named(name=called[0], value=value)
    marked = MARKUP.fullmatch(key)
    if marked and marked[1][:1].isdigit() and _ends(inside := marked[1].strip()):
        value = plain(inside, depth + 1)
        if value is not None:
            return value
    bare, unit = cut(key) if depth < _MAX_DEPTH else (key, "")
    if bare == key:
        return _words(key)
    value = plain(bare, depth + 1)
    return value and in_unit(value, measured(unit))


def _scaled(found: Scalar, unit: str) -> Value:
    """`5 million dollars` is five million of something: the word belongs to the number."""
    word = _SCALE.match(unit)
    if word and found.exact is not None:
        return Scalar(exact=found.exact * _SCALES[word[1].lower()])
    return in_unit(found, measured(unit)) if unit else found


def _time(key: str) -> Value:
    """A time of day is a word of its own; a duration is its minutes."""
    minutes = lasting(key)
    return (
        Text(text=clock(key) or "", kind="time")
        if minutes is None
        else Scalar(exact=Fraction(minutes), unit=MINUTE)
    )


def lasting(key: str) -> int | None:
    """The minutes of `2 hours and 15 minutes`, or None."""
    found = _DURATION.fullmatch(key)
    return 60 * int(found[1]) + int(found[2]) if found else None


def clock(key: str) -> str | None:
    """A time of day in its usual form (`2:35 pm`), or None."""
    found = _CLOCK.fullmatch(key)
    if found is None or not 0 < int(found[1]) <= 24:
        return None
    minutes = re.sub(r"\s", "", found[2]) or ":00"
    return f"{int(found[1])}{minutes} {found[3].lower()}m"


def asked_for(key: str) -> tuple[str, str] | None:
    """What is asked for, in words, and what it is: `\\text{Area}` and `5`. Letters are names of another
    kind.
    """
    found = _CALLED.match(key)
    if found is None:
        return None
    name = MARKUP.sub(r"\1", found[1]).strip()
    fewest = 3 if found[1].startswith("\\") else 4
    return (name, key[found.end() :]) if any(len(run) >= fewest for run in _LETTERS.findall(name)) else None


def _unmarked(key: str) -> str:
    return re.sub(" +", " ", MARKUP.sub(r" \1 ", key)).strip()


def exception(key: str) -> str | None:
    """What "all real numbers except .." leaves out, or None."""
    found = EXCEPT.fullmatch(_unmarked(key))
    return found[1].replace(" and ", ",") if found else None


def wordy(key: str) -> bool:
    """Whether an answer is words and nothing else: at most one number, as in `Vendor 2` or `the 60th
    caller`.
    """
    bare = MARKUP.sub(r" \1 ", key).strip()
    return _WORDY.fullmatch(bare) is not None and any(
        len(run) >= 2 and run not in _MATHEMATICAL for run in _LETTERS.findall(bare)
    )


def _ends(key: str) -> list[int]:
    """Where the number may stop: at the end, or before a unit."""
    start = re.match(r"[+-]?[\d.,/\s]*(?:\\frac ?(?:\{-?\d+\}\{-?\d+\}|\d ?\d)|\d)", key)
    if start is None:
        return []
    rest = start.end() + len(re.match(r"[\d.,]*(?:/-?\d+)?", key[start.end() :])[0])
    unit = _UNIT.fullmatch(key, rest)
    named = (
        unit is not None
        and (unit[1] or unit[2] or "").strip().split(" ")[0].lower() not in _JOINS | _MATHEMATICAL
    )
    return [len(key), rest] if named else [len(key)]


def _words(key: str) -> Value | None:
    """Words mean themselves, whatever their case and markup; a run of four letters beside digits is prose,
    not a product.
    """
    if (
        len(key) > MAX_TEXT_CHARS
        or _PIECEWISE.search(key)
        or EXTREMUM.match(key)
        or EXCEPT.fullmatch(_unmarked(key))
    ):
        return None
    marked = MARKUP.fullmatch(key)
    known = (marked[1] if marked else key).strip(" .").lower()
    if known in _NONE or known in _ALL:
        return EMPTY if known in _NONE else interval("-inf", "inf")
    if _BARE_WORD.fullmatch(key) or (marked and _MARKED_WORD.fullmatch(marked[1])):
        return Text(text=_ARTICLE.sub("", known, count=1) if _ARTICLE.match(known) else known, kind="words")
    bare = MARKUP.sub(r" \1 ", key)
    runs = [run.lower() for run in _LETTERS.findall(_COMMAND.sub(" ", bare))]
    words = [run for run in runs if len(run) >= 3 and run not in _MATHEMATICAL]
    formula = re.search(r"[0-9=<>^_{}+*|\\]", bare) is not None
    words = [word for word in words if not UNITS.fullmatch(word)] if formula else words
    words += _SHORT.findall(bare.lower())
    if (_DOTS.search(key) and not ENDLESS.search(key)) or (
        words and (not formula or any(len(word) >= 4 or _SHORT.fullmatch(word) for word in words))
    ):
        text = re.sub(r"[\W_]+", " ", bare).strip().lower() if not formula else bare.lower()
        text = _ARTICLE.sub("", text, count=1) if not formula and _ARTICLE.match(text) else text
        return Text(text=text, kind="words" if wordy(key) else "prose")
    return None
