"""The written forms of an answer that need no computer algebra: normal text, plain numbers, plain words.

Everything here is pure, bounded by `MAX_ANSWER_CHARS`, and safe on hostile input: nothing is evaluated. Most
answers of arithmetic problems are settled here, in the calling process, without asking a worker.
"""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

from evaluation.intervals import interval
from evaluation.notation import cut
from evaluation.units import DEGREE, MINUTE, UNITS, measured
from evaluation.values import EMPTY, Named, Scalar, Text, Value, in_unit

MAX_ANSWER_CHARS = 1000
"""Longer answers count as unparseable: the longest gold of the 18 benchmarks has 988 characters."""
_MAX_KEY_CHARS = 4 * MAX_ANSWER_CHARS
"""Normal text may be longer than what was written (a vulgar fraction becomes eleven characters), within
reason.
"""
MAX_TEXT_CHARS = 200
"""Longer prose is no answer but a failure to give one."""
MAX_EXPONENT = 400
"""Larger powers of ten are left to the worker, where a limit holds."""

_CHARACTERS = str.maketrans(
    dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\ufe63\uff0d", "-")
    | dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060\x00\u20ac\u00a3\u00a5", "")
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {
        "\u00d7": r"\times ",
        "\u22c5": r"\cdot ",
        "\u00b7": r"\cdot ",
        "\u00f7": "/",
        "\u2044": "/",
        "\uff05": "%",
    }
    | {"\u03c0": r"\pi ", "\u221e": r"\infty ", "\u00b0": r"^\circ ", "\u00b1": r"\pm "}
    | {"\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u2026": "..."}
    | {"\u222a": r"\cup ", "\u2205": r"\emptyset ", "\u2208": r"\in "}
)
_DOUBLED = re.compile(
    r"(?<!\\)\\\\((?:[dtc]?frac|sqrt|left|right|begin|end|text|math[a-z]+|boxed|cdot|times|div|pm|mp|infty|circ|pi|theta|alpha|beta|gamma|lambda|mu|sigma"
    r"|omega|phi|in|cup|cap|le|leq|ge|geq|ne|neq|lt|gt|approx|sin|cos|tan|sec|csc|cot|ln|log|exp|sum|prod|int|binom|overline|bar|vec|hat|quad|emptyset|[lc]?dots"
    r"|lfloor|rfloor|lceil|rceil|langle|rangle|prime|degree|setminus|mid|arcsin|arccos|arctan)(?![a-zA-Z]))"
)
_DOUBLED_BRACE = re.compile(r"(?<!\\)\\\\[{}]")
_SINGLE = re.compile(r"(?<!\\)\\(?:\\\\)*+[a-zA-Z]")
_SUPERSCRIPTS = dict(
    zip("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-", strict=True)
)
_SUBSCRIPTS = {chr(0x2080 + digit): str(digit) for digit in range(10)}
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_RADICAL = re.compile(r"\u221a ?(?:(\d+(?:\.\d+)?|[A-Za-z])|(?=[({]))")
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|,?\\!|\\,)(?=\d{3})")
_PERCENT = re.compile(r"\\?%|\bpercent(?:age)?\b|\\text\{ ?percent ?\}", re.IGNORECASE)
_LISTED = re.compile(r"(?<=\d), +(?=\d{3}(?!\d))")
"""A comma with a space after it ends a number: `40, 200` is two."""
_SYNONYMS = ((r"\degree", r"^\circ "), (r"\lbrace", r"\{"), (r"\rbrace", r"\}"), (r"\colon", ":"))
_SYNONYM = re.compile("|".join(re.escape(name) + "(?![a-zA-Z])" for name, _ in _SYNONYMS))
_SPACING = re.compile(
    r"\\(?:displaystyle|quad|qquad|left|right|limits)(?![a-zA-Z])\.?|(?<!\\)\\[,!;:() \[\]]|~|\s+"
)
_EMPHASIS = re.compile(
    r"\\(?:boldsymbol|bm|bf|pmb|underline|large|Large|checkmark|(?:text)?color ?\{ ?[A-Za-z]+ ?\})(?![a-zA-Z])"
)
_DOLLAR = re.compile(r"\\?\$")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SLANTED = re.compile(r"\\(leq|geq)slant(?![a-zA-Z])")
_SPACES = re.compile(r" +")
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")
_LONE_LETTER = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf|mbox) ?\{ ?)?\(?([A-Za-z])\)? ?\}?")

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(
    rf"([+-]?)({_UNSIGNED})(?:(?:[eE]| ?(?:\\times|\\cdot|\*|x) ?10\^)\{{?([+-]?\d{{1,6}})\}}?)?"
)
_RATIO = re.compile(
    r"([+-]?)(?:(\d+)(?: ?(?=\\frac)| (?=\d+/)))?(?:\\frac\{(-?\d+)\}\{(-?\d+)\}|\\frac ?(\d) ?(\d)|(\d+)/(-?\d+))"
)
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar|dot) ?\{(\d+)\}")
_RECURRING = re.compile(r"(?<=\.)(\d{0,20}?)(?:(\d)\2{2,30}|(\d{2,9}?)\3{1,9})(?:\.\.\.|\\[lc]?dots)\.?$")
"""A digit written three times, or several written twice, and dots: `0.1666...` is `0.1\\overline{6}`."""
_SPACED = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_MINUTES, _SECONDS = r"(?:'|\^ ?\{?\\prime ?\}?)", r"(?:''|\"|\^ ?\{\\prime ?\\prime ?\})"
_ANGLE = re.compile(
    rf"(-?)(\d+) ?\^ ?\{{?\\circ ?\}}? ?(\d+(?:\.\d+)?) ?{_MINUTES}(?: ?(\d+(?:\.\d+)?) ?{_SECONDS})?"
)
APART = re.compile(r"[+-]?[\d.]+(?: [\d.]+)+")
"""Numbers with nothing but space between them are no answer."""
_BASED = re.compile(r"(?:(\d+)|\((\d+)\))_(?:\{(?:\\text\{)?(\w{1,12})\}{1,2}|(\d))")
_UNIT = re.compile(
    r" ?(?:\^\{?\\circ ?\}?|\\(?:text|mathrm|mbox|textrm)\{(?! ?[iejxyztnk] ?\})([^{}\d]*)\}|((?:[A-Za-z]{3,}|cm|mm|km|kg|mg|ml|ft|lb|hr)\b[A-Za-z '/-]*))(?:\^\{?\d\}?)?"
)
MARKUP = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox)\{([^{}]*)\}"
)
CALLED = re.compile(
    r"((?:\\(?:text|textbf|mathrm|mbox) ?\{[A-Za-z .']{1,60}\}|[A-Z]?[a-z]{3,20}(?: [a-z]{1,20}){0,6})(?:_(?:\{\w{1,12}\}|\w))?) ?= ?(?=[^=<>]+$)"
)
"""What is asked for, in words, before what it is: `\\text{Area} = 5`."""
_ARTICLE = re.compile(r"(?:an?|the) (?=\w\w)", re.IGNORECASE)
EXCEPT = re.compile(
    r"(?:all |the )?(?:set of )?(?:all )?(?:real numbers|reals)(?: x)?,? (?:except|other than|excluding|but not|but|not equal to)(?: for)? (?:x ?= ?)?(.+)",
    re.IGNORECASE,
)
_UNEQUAL = re.compile(r"(?<![\d)}\]!]) ?!= ?")
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


def normalise(text: str) -> str:
    """The text without notation that carries no meaning; equal results are equal answers.

    A percent sign counts as a unit and is dropped, so `35\\%`, `35.0%` and `35` agree and none of them equals
    `0.35`. Dollar signs go too, whether they open mathematics or name a price. Case is kept.
    """
    text = _GROUPED.sub("", unescaped(_latin(text)).strip().strip("*"))
    text = _SYNONYM.sub(lambda found: dict(_SYNONYMS)[found[0]], _LISTED.sub("; ", text))
    text = _DOLLAR.sub("", _PERCENT.sub("", text)).replace("**", "^")
    text = _SLANTED.sub(r"\\\1", _FRACTION.sub(r"\\frac", _EMPHASIS.sub(" ", _SPACING.sub(" ", text))))
    text = _LOOSE_SPACE.sub(
        "", _SPACES.sub(" ", _UNEQUAL.sub(r"\\ne ", text) if "!=" in text else text).strip()
    )
    text = _RECURRING.sub(lambda found: f"{found[1]}\\overline{{{found[2] or found[3]}}}", text).rstrip(
        ".,;: "
    )
    letter = _LONE_LETTER.fullmatch(text)
    return letter[1] if letter else text[:_MAX_KEY_CHARS]


def unescaped(text: str) -> str:
    """LaTeX that was escaped twice, as it was meant: `\\\\frac` is no row of a matrix that begins with
    "frac".

    Where every command is doubled, so are rows and brackets; else only commands that are known are put right.
    """
    if "\\\\" not in text:
        return text
    if _SINGLE.search(text):
        return _DOUBLED.sub(r"\\\1", text)
    return text.replace("\\\\", "\\") if _DOUBLED.search(text) or _DOUBLED_BRACE.search(text) else text


def _latin(text: str) -> str:
    """The text with LaTeX for characters that are formulas: fractions, roots, indices, signs."""
    if text.isascii():
        return text
    text = _VULGAR.sub(
        lambda found: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", found[0]).split("\u2044")),
        text,
    )
    text = _RAISED.sub(lambda found: "^{" + "".join(map(_SUPERSCRIPTS.get, found[0])) + "}", text)
    text = _LOWERED.sub(lambda found: "_{" + "".join(map(_SUBSCRIPTS.get, found[0])) + "}", text)
    return _RADICAL.sub(lambda found: f"\\sqrt{{{found[1]}}}" if found[1] else "\\sqrt", text).translate(
        _CHARACTERS
    )


def plain(key: str) -> Value | None:
    """The value of a normalised answer that is a plain number (a unit after it is dropped) or plain words;
    else None.
    """
    for end in _ends(key):
        number = _number(key[:end])
        if number is not None:
            return _scaled(number, key[end:])
    based = _BASED.fullmatch(key)
    if based:
        return Named(
            name=f"base {based[3] or based[4]}", value=Scalar(exact=Fraction(int(based[1] or based[2])))
        )
    if clock(key) or lasting(key) is not None:
        return _time(key)
    called = CALLED.match(key)
    if called and any(len(run) >= 4 for run in _LETTERS.findall(called[1])):
        value = plain(key[called.end() :])
        return (
            value if value is None or isinstance(value, Text) else Named(name=called[1].strip(), value=value)
        )
    marked = MARKUP.fullmatch(key)
    if (
        marked
        and marked[1][:1].isdigit()
        and _ends(inside := marked[1].strip())
        and plain(inside) is not None
    ):
        return plain(inside)
    bare, unit = cut(key)
    if bare == key:
        return _words(key)
    value = plain(bare)
    return value and in_unit(value, measured(unit))


def _scaled(number: Scalar, unit: str) -> Value:
    """`5 million dollars` is five million of something: the word belongs to the number."""
    word = _SCALE.match(unit)
    if word and number.exact is not None:
        return Scalar(exact=number.exact * _SCALES[word[1].lower()])
    return in_unit(number, measured(unit)) if unit else number


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


def _unmarked(key: str) -> str:
    return re.sub(" +", " ", MARKUP.sub(r" \1 ", key)).strip()


def exception(key: str) -> str | None:
    """What "all real numbers except .." leaves out, or None."""
    found = EXCEPT.fullmatch(_unmarked(key))
    return found[1].replace(" and ", ",") if found else None


def wordy(key: str) -> bool:
    """Whether an answer is words and nothing else: at most one number, as in `Vendor 2` or `the 60th caller`."""
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


def _number(text: str) -> Scalar | None:
    return (
        _decimal(text.replace(" ", "") if _SPACED.fullmatch(text) else text)
        or _ratio(text)
        or _repeating(text)
        or _angle(text)
    )


def _decimal(text: str) -> Scalar | None:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        return None
    sign, digits, exponent = found[1], found[2].replace(",", ""), int(found[3] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    whole, _, part = digits.partition(".")
    exact = Fraction(Decimal(f"{sign}{digits}")) * Fraction(10) ** exponent
    num_places = len(part) - exponent
    long = "." in digits and len((whole + part).lstrip("0")) >= 6 and num_places >= 4
    return Scalar(exact=exact, slack=Fraction(1, 2) / Fraction(10) ** num_places if long else Fraction(0))


def _ratio(text: str) -> Scalar | None:
    found = _RATIO.fullmatch(text)
    if found is None:
        return None
    over, under = int(found[3] or found[5] or found[7]), int(found[4] or found[6] or found[8])
    if under == 0 or (found[2] and (over < 0 or under < 0)):
        return None
    magnitude = Fraction(over, under) + int(found[2] or 0)
    return Scalar(exact=-magnitude if found[1] == "-" else magnitude)


def _repeating(text: str) -> Scalar | None:
    found = _REPEATING.fullmatch(text)
    if found is None:
        return None
    once = Fraction(int(found[2] + found[3] or "0"))
    cycle = Fraction(int(found[4]), 10 ** len(found[4]) - 1)
    magnitude = (once + cycle) / 10 ** len(found[3])
    return Scalar(exact=-magnitude if found[1] == "-" else magnitude)


def _angle(text: str) -> Scalar | None:
    """Degrees, minutes and seconds, in degrees."""
    found = _ANGLE.fullmatch(text)
    if found is None:
        return None
    magnitude = Fraction(found[2]) + Fraction(found[3]) / 60 + Fraction(found[4] or 0) / 3600
    return Scalar(exact=-magnitude if found[1] else magnitude, unit=DEGREE)


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
