"""Small rewritings before an answer is read: approximate signs and units off, letters kept apart that the
parser would confuse.
"""

import re

from evaluation.units import trailing

_LEAD = re.compile(
    r"(?:\\(?:approx|cong|simeq|sim|bullet|quad|qquad|therefore|displaystyle)(?![a-zA-Z]) ?|(?:about"
    r"|approximately|exactly)\b ?|[;:] ?)+",
    re.IGNORECASE,
)
_RANGE = re.compile(
    r"(?:,? ?for |, ?)(?:all|any|every|each|some)? ?(?:real numbers?|reals?|integers?|whole numbers?"
    r"|values of)(?: [a-zA-Z](?:, ?[a-zA-Z])*)?$",
    re.IGNORECASE,
)
_NOT_UNITS = re.compile(
    r"\b(?:and|or|to|if|for|where|when|otherwise|mod|with|all|any|no|not)\b", re.IGNORECASE
)
_SCIENTIFIC = re.compile(r"(?<![\w.}])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,6})(?![\w.])")
_PRIMED = re.compile(
    r"(\\[a-zA-Z]+|[A-Za-z])((?:_ ?(?:\{[^{}]*\}|\w))?)(?:\^ ?\{((?:\\prime ?)+)\}"
    r"|\^ ?(\\prime)(?![a-zA-Z])|('+))"
)
_SUBSCRIPT = re.compile(
    r"(?<!\\log)(?<!\\lim)(?<!\\sum)(?<!\\int)(?<!\\prod)(?<!\\ln) ?_ ?\{([^{}=]*[^A-Za-z0-9{}=][^{}=]*)\}"
)
_LETTER = re.compile(r"\\[a-zA-Z]+(?: ?\{[a-zA-Z*]+\})?|[EI](?![a-zA-Z])|(?<![A-Za-z])[EI]")
_GREEK = re.compile(r"\\([gG])amma(?![a-zA-Z])")
_NAMED = re.compile(r"\\operatorname\*? ?\{ ?([A-Za-z]+) ?\}")
_FUNCTIONS = frozenset({"arccot", "arcsec", "arccsc", "arcsinh", "arccosh", "arctanh", "sech", "csch", "sgn"})
_DETERMINANT = re.compile(
    r"\| ?\\begin ?\{array\} ?\{[lcr| ]*\}((?:(?!\\begin).)*?)\\end ?\{array\} ?\|", re.DOTALL
)
_SIGNS = {".": "dot", ",": "and", "+": "plus", "-": "minus", "*": "star"}
_BARE_FRACTION = re.compile(r"\\(frac|binom) ?(\\[a-zA-Z]+|\w) ?(\\[a-zA-Z]+|\w)(?![a-zA-Z])")
_GLUED = re.compile(
    r"\\(pi|omega|lambda|theta|alpha|beta|sigma|rho|mu|phi|psi|tau|Omega|Delta)([A-Za-z]{1,2})(?![A-Za-z])"
)
_ANGULAR = re.compile(r"(?:sin|cos|tan|sec|csc|cot) ?(?:\(|\d)[^A-Za-z]*\^ ?\{?\\circ")
"""A degree sign after which a function would have another argument without it."""
_BARE_NAME = re.compile(
    r"(?<![\\A-Za-z{_])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|sec|csc|cot|ln|log|exp|sqrt|pi"
    r"|theta|alpha|beta)(?![A-Za-z{])"
)
_ARROW = r"(?:\\(?:vec|mathbf|overrightarrow) ?\{[A-Za-z ]{1,4}\}(?:_ ?\w|_ ?\{\w+\})?)"
_CROSS = re.compile(rf"{_ARROW} ?\\times ?{_ARROW}")
_BLACKBOARD = re.compile(r"\\mathbb ?\{?([RZNQC])\}?")


def trimmed(key: str) -> str:
    """The answer without a leading "approximately", a trailing unit, or "for any integer n"; unchanged where
    nothing else would be left.
    """
    return cut(key)[0]


def cut(key: str) -> tuple[str, str]:
    """The answer as `trimmed` leaves it, and the unit that was taken off, if any."""
    lead = _LEAD.match(key)
    text = key[lead.end() :] if lead else key
    text = _RANGE.sub("", text) or text
    start = None if _ANGULAR.search(text) else trailing(text)
    if start and not _NOT_UNITS.search(text, start):
        left = text[:start].rstrip(" ~-/")
        if re.search(r"[\d)}\]]$|\\pi$|[A-Za-z]$", left) and _expression(left):
            return left, text[start:]
    return text or key, ""


def _expression(text: str) -> bool:
    """Whether a text has mathematics in it, so that words after it can be units."""
    return re.search(r"\d|[=^_+*/]|\\(?:frac|sqrt|pi)", text) is not None


def latex(key: str) -> str:
    """The normalised answer as the computer algebra should read it.

    `4.5e33` is a power of ten and not a product with e; E, I and gamma are letters and not constants; `y'` is
    not `y`; `\\omegat`, in which a space was lost, is omega and t; `sin x` is `\\sin x`; the cross product of
    two vectors is not their product.
    """
    text = _BARE_FRACTION.sub(
        r"\\\1{\2}{\3}", _SCIENTIFIC.sub(r"\1\\times 10^{\2}", _GLUED.sub(r"\\\1 \2", key))
    )
    text = _BARE_NAME.sub(r"\\\1 ", text)
    text = _CROSS.sub(
        lambda found: (
            "\\mathit{"
            + re.sub(
                r"\\(?:vec|mathbf|overrightarrow)|[^A-Za-z0-9]", "", found[0].replace(r"\times", "cross")
            )
            + "}"
        ),
        text,
    )
    text = (
        _DETERMINANT.sub(r"\\begin{vmatrix}\1\\end{vmatrix}", text)
        .replace(r"\|", "|")
        .replace(r"\lvert", "|")
        .replace(r"\rvert", "|")
    )
    text = _NAMED.sub(_operator, text)
    text = _PRIMED.sub(_prime, text)
    text = _SUBSCRIPT.sub(
        lambda found: "_{" + re.sub(r"[^A-Za-z0-9]", lambda sign: _SIGNS.get(sign[0], ""), found[1]) + "}",
        text,
    )
    text = _GREEK.sub(r"\\mathit{\1am}", text)
    return _LETTER.sub(
        lambda found: found[0] if found[0].startswith("\\") else f"\\mathit{{{found[0]}}}", text
    )


def number_system(key: str) -> str | None:
    """The letter of a number system (the reals, the integers ...), or None."""
    found = _BLACKBOARD.fullmatch(key)
    return found[1] if found else None


def _operator(found: re.Match[str]) -> str:
    return f"\\{found[1]} " if found[1] in _FUNCTIONS else f"\\mathit{{{found[1]}}}"


def _prime(found: re.Match[str]) -> str:
    """A primed letter as a letter of its own: y' is yp, and y'' is ypp."""
    count = (found[3] or found[4] or "").count("prime") or len(found[5] or "")
    return f"\\mathit{{{found[1].lstrip(chr(92))}{'p' * count}}}{found[2]}"
