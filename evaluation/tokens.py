"""LaTeX cut into numbers, commands, letters and signs, and which of them mean what; letters that may be a
word, and differentials, are refused.
"""

import re
from collections.abc import Iterator

from evaluation.formula import Refused, Sign

TABLE, TABLE_END, ROW = "\x02", "\x03", "\\\\"
"""What stands for the beginning of a matrix, its end, and the end of a row."""
_TOKEN = re.compile(
    r" +|(\d+(?:\.\d+)?|\.\d+)|\\([A-Za-z]+)|([A-Za-z]+)|([-+*/:^_!()\[\]{}|=<>&\x02\x03]|\\\\)"
)
_TABLE_BEGINS = re.compile(r"\\begin ?\{(?:array\} ?\{[lcr| ]*|[pb]?matrix)\}")
_TABLE_ENDS = re.compile(r"\\end ?\{(?:array|[pb]?matrix)\}")
_OTHERWISE = frozenset({"ln", "or", "pi", "in", "if", "is", "of", "to", "at", "no", "th", "ab"})
"""Two letters that may be a word and not a product."""
_NAMING = re.compile(r"(?:_ ?|\\(?:text|mathrm|mathit|mathbf) ?)\{[A-Za-z0-9]*$")
"""The start of a subscript or of letters in a font, where a run of letters is one name."""
_DIFFERENTIAL = re.compile(r"d ?(?:[a-zA-Z]|\\)")
TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh"})
INVERSE = {f"arc{name}": f"a{name}" for name in TRIGONOMETRIC}
FUNCTIONS = TRIGONOMETRIC | frozenset(INVERSE) | {"ln", "log", "exp"}
GREEK = frozenset(
    (
        "alpha beta delta Delta epsilon varepsilon zeta eta theta Theta vartheta iota kappa lambda Lambda mu "
        "nu xi Xi rho varrho sigma Sigma tau upsilon Upsilon phi Phi varphi chi psi Psi omega Omega ell hbar"
    ).split()
)
UPRIGHT = frozenset({"text", "mathrm", "mathit", "mathbf"})
ACCENTS = {"bar": "bar", "overline": "bar", "hat": "hat", "vec": "vec", "tilde": "tilde"}
TIMES = {"*": "*", "\\times": "*", "\\cdot": "*", "/": "/", "\\div": "/", ":": "/"}
RELATIONS: dict[str, Sign] = {
    "=": "=", "<": "<", ">": ">", "\\lt": "<", "\\gt": ">",
    "\\le": "<=", "\\leq": "<=", "\\ge": ">=", "\\geq": ">=", "\\ne": "!=", "\\neq": "!=",
}  # fmt: skip
NO_FACTOR = frozenset({"+", "-", ")", "]", "}", "^", "_", "!", "&", ROW, TABLE_END})
CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
RESERVED = frozenset({"T", "d", "th", "and", "or", "percent", "percentage", "pct", "inf", "infinity"})
NUMBER = re.compile(r"[\d.]+")


def tokens(latex: str) -> list[str]:
    """The tokens of a LaTeX text, letters one by one; raises `Refused` at anything else."""
    if _DIFFERENTIAL.search(re.sub(r"\\[A-Za-z]+", r"\\", latex)):
        raise Refused("a differential")
    return list(_tokens(_TABLE_ENDS.sub(TABLE_END, _TABLE_BEGINS.sub(TABLE, latex))))


def _tokens(latex: str) -> Iterator[str]:
    at = 0
    while at < len(latex):
        found = _TOKEN.match(latex, at)
        if found is None:
            raise Refused(f"{latex[at]!r} at {at}")
        at = found.end()
        word = found[3]
        if (
            word
            and (len(word) > 2 or word in _OTHERWISE)
            and not _NAMING.search(latex[max(0, found.start() - 40) : found.start()])
        ):
            raise Refused(f"{word!r} may be a word")
        yield from word or ([found[0]] if found[0].strip() else [])
