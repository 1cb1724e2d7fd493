"""How an answer is put together: lists, sets, pairs, intervals, unions, matrices, cases; pure text, linear in
its length.

The computer algebra reads single expressions well and collections badly (it stops at a comma, or takes `d=5,
M=(1,2)` for one chain of equations), so answers are taken apart here and only their innermost parts are read
as mathematics.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MAX_PARTS = 64
MAX_SIGNS = 3

Kind = Literal[
    "list", "tuple", "[]", "(]", "[)", "set", "such that", "union", "matrix", "cases", "range of unions"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A collection and the text of its parts; a matrix has its rows one after the other, `columns` in each.

    `logical` says that its parts are joined by a sign of logic, which tells "and" from "or".
    """

    kind: Kind
    parts: tuple[str, ...]
    columns: int = 1
    joined_by: Literal["", "and", "or"] = ""
    logical: bool = False


_BRACKET = re.compile(
    r"\\[{}]|\\[lr](?:brace|brack|angle)(?![a-zA-Z])|\\begin ?\{\w+\*?\}|\\end ?\{\w+\*?\}|\\[a-zA-Z]+"
    r"|\\.|[(\[{}\])]",
    re.DOTALL,
)
_OPEN = frozenset({"(", "[", "{", r"\{", r"\lbrace", r"\lbrack", r"\langle"})
_CLOSE = frozenset({")", "]", "}", r"\}", r"\rbrace", r"\rbrack", r"\rangle"})
_JOIN = re.compile(
    r"[,;]|\\(?:text|textrm|mathrm|mbox) ?\{ ?(?:,? ?(?:and|or)|,) ?\}|(?<![A-Za-z\\])(?:and"
    r"|or)(?![A-Za-z])|\\(?:land|lor|wedge|vee)(?![a-zA-Z])"
)
_LOGICAL = re.compile(r"\\(?:land|lor|wedge|vee)(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")
_BAR = re.compile(r"\\mid(?![a-zA-Z])|\\vert(?![a-zA-Z])|\||:")
_EQUALS = re.compile(r"(?<![<>!:])=(?!=)")
_SIGN = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_BOUNDS = r"_ ?\{([^{}]*)\} ?\^ ?(?:\{([^{}]*)\}|(\\?\w+))"
_BIG_CUP = re.compile(rf"\\bigcup ?{_BOUNDS} ?(.+)", re.DOTALL)
_TABLE = re.compile(
    r"[(\[]?\\begin ?\{(array|[pbB]?matrix|smallmatrix|cases|aligned)\} ?(?:\{[lcr"
    r"| ]*\})?(.*)\\end ?\{\1\}[)\]]?",
    re.DOTALL,
)
_CASES = re.compile(r"\\\{ ?\\begin ?\{array\} ?\{[lcr| ]*\}(.*)\\end ?\{array\}", re.DOTALL)
_PAIRS = {"()": "tuple", "[]": "[]", "(]": "(]", "[)": "[)"}


def outline(key: str) -> Outline | None:
    """How a normalised answer is put together, or None where it is a single expression."""
    return _table(key) or _joined(key) or _union(key) or _bracketed(key)


def signs(key: str) -> tuple[str, ...]:
    """The readings of an answer with plus-minus signs: upper and lower signs together if it mixes both, else
    each sign by itself.
    """
    found = _SIGN.findall(key)
    if not found or len(found) > MAX_SIGNS:
        return (key,)
    if "mp" in found:
        choices = [
            ("+" if name == "pm" else "-" for name in found),
            ("-" if name == "pm" else "+" for name in found),
        ]
    else:
        choices = itertools.product("+-", repeat=len(found))
    readings = []
    for choice in choices:
        marks = iter(choice)
        text = _SIGN.sub(lambda _, marks=marks: next(marks), key)
        readings.append(re.sub(r"(^|[=({\[,<>]) ?\+ ?", r"\1", text))
    return tuple(dict.fromkeys(readings))


def equation(key: str) -> tuple[str, ...]:
    """The sides of an equation chain at the outermost level; one part where there is no equals sign."""
    return tuple(part.strip() for part in split(key, _EQUALS))


def split(key: str, separator: re.Pattern[str]) -> list[str]:
    """The pieces between separators that stand outside all brackets."""
    separators = list(separator.finditer(key))
    depths = list(_closed(key)) if separators else []
    pieces, start, i = [], 0, 0
    for found in separators:
        while i < len(depths) and depths[i][0] <= found.start():
            i += 1
        depth = depths[i - 1][1] if i else 0
        if depth == 0:
            pieces.append(key[start : found.start()])
            start = found.end()
    return [*pieces, key[start:]]


def _closed(key: str) -> Iterator[tuple[int, int]]:
    """After each bracket: where it ends, and how many are open there. Commands' names are skipped over; kinds
    need not match.
    """
    depth = 0
    for token in _BRACKET.finditer(key):
        text = token[0]
        if text in _OPEN or text.startswith(r"\begin"):
            depth += 1
            yield token.start() + 1, depth
        elif text in _CLOSE or text.startswith(r"\end"):
            depth = max(0, depth - 1)
            yield token.end(), depth


def _whole(key: str) -> bool:
    """Whether the first bracket of the text closes at its very end."""
    ends = [end for end, depth in _closed(key) if depth == 0]
    return bool(ends) and ends[0] == len(key)


def _table(key: str) -> Outline | None:
    cases = _CASES.fullmatch(key)
    table = None if cases else _TABLE.fullmatch(key)
    if cases is None and (table is None or r"\begin" in table[2]):
        return None
    body, kind = (cases[1], "cases") if cases else (table[2], "cases" if table[1] == "cases" else "matrix")
    rows = [
        row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?", body.replace(r"\hline", "")) if row.strip()
    ]
    columns = max(map(len, rows), default=0)
    cells = [cell.strip() for row in rows for cell in row + [""] * (columns - len(row))]
    if not cells or len(cells) > MAX_PARTS or (kind == "matrix" and not all(cells)):
        return None
    return Outline(kind=kind, parts=tuple(cells), columns=columns)


def _joined(key: str) -> Outline | None:
    pieces = [piece.strip() for piece in split(key, _JOIN)]
    parts = tuple(piece for piece in pieces if piece)
    if len(pieces) == 1 or not parts or len(parts) > MAX_PARTS:
        return None
    words = "".join(re.findall(r"and|or|\\land|\\lor|\\wedge|\\vee", re.sub(r"\\[a-km-uw-z]\w*", "", key)))
    joined = "or" if re.search(r"or|vee", words) else "and" if words else ""
    return Outline(kind="list", parts=parts, joined_by=joined, logical=_LOGICAL.search(key) is not None)


def _union(key: str) -> Outline | None:
    big = _BIG_CUP.fullmatch(key)
    if big:
        return Outline(kind="range of unions", parts=(f"{big[1]}..{big[2] or big[3]}", big[4]))
    parts = tuple(part.strip() for part in split(key, _CUP))
    return Outline(kind="union", parts=parts) if 1 < len(parts) <= MAX_PARTS and all(parts) else None


def _bracketed(key: str) -> Outline | None:
    if key.startswith(r"\{") and key.endswith(r"\}") and _whole(key):
        inside = key[2:-2].strip()
        conditions = split(inside, _BAR)
        if len(conditions) > 1 and all(part.strip() for part in conditions):
            return Outline(
                kind="such that",
                parts=(conditions[0].strip(), inside[len(conditions[0]) + 1 :].removeprefix("mid").strip()),
            )
        return Outline(kind="set", parts=_items(inside))
    kind = _PAIRS.get(key[:1] + key[-1:]) if key else None
    angled = key.startswith(r"\langle") and key.endswith(r"\rangle")
    if (kind is None and not angled) or not _whole(key):
        return None
    parts = _items(key[7:-7] if angled else key[1:-1])
    if len(parts) < 2 or len(parts) > MAX_PARTS:
        return None
    return Outline(kind=kind if kind and len(parts) == 2 else "tuple", parts=parts)


def _items(inside: str) -> tuple[str, ...]:
    return tuple(part for piece in split(inside, re.compile("[,;]")) if (part := piece.strip()))
