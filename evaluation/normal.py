"""The normal text of an answer: without notation that carries no meaning, so that equal results are equal
answers.
"""

import re
import unicodedata

MAX_ANSWER_CHARS = 1000
"""Longer answers count as unparseable: the longest gold of the 18 benchmarks has 988 characters."""
_MAX_KEY_CHARS = 4 * MAX_ANSWER_CHARS
"""Normal text may be longer than what was written (a vulgar fraction becomes eleven characters), within
reason.
"""
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
    r"(?<!\\)\\\\((?:[dtc]?frac|sqrt|left|right|begin|end|text|math[a-z]+|boxed|cdot|times|div|pm|mp"
    r"|infty|circ|pi|theta|alpha|beta|gamma|lambda|mu|sigma"
    r"|omega|phi|in|cup|cap|le|leq|ge|geq|ne|neq|lt|gt|approx|sin|cos|tan|sec|csc|cot|ln|log|exp|sum|prod"
    r"|int|binom|overline|bar|vec|hat|quad|emptyset|[lc]?dots"
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
    r"\\(?:boldsymbol|bm|bf|pmb|underline|large|Large|checkmark"
    r"|(?:text)?color ?\{ ?[A-Za-z]+ ?\})(?![a-zA-Z])"
)
_DOLLAR = re.compile(r"\\?\$")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SLANTED = re.compile(r"\\(leq|geq)slant(?![a-zA-Z])")
_SPACES = re.compile(r" +")
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")
_LONE_LETTER = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf|mbox) ?\{ ?)?\(?([A-Za-z])\)? ?\}?")
_RECURRING = re.compile(r"(?<=\.)(\d{0,20}?)(?:(\d)\2{2,30}|(\d{2,9}?)\3{1,9})(?:\.\.\.|\\[lc]?dots)\.?$")
"""A digit written three times, or several written twice, and dots: `0.1666...` is `0.1\\overline{6}`."""
_UNEQUAL = re.compile(r"(?<![\d)}\]!]) ?!= ?")


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
