"""What a single expression or relation means: read directly where it is in the small grammar of `reader`,
else by the computer algebra.

The direct way takes a hundredth of the time and reads nearly all answers; both ways give the same value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from evaluation import algebra, equations
from evaluation.forms import APART
from evaluation.formula import Node, Refused, Sign, minus_one, negative
from evaluation.notation import latex
from evaluation.points import scalar
from evaluation.reader import parse
from evaluation.repeated import symbols
from evaluation.tables import distributed
from evaluation.values import Group, Scalar, Value

_TURNED: dict[Sign, Sign] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def expression_value(key: str) -> Value | None:
    """What a normalised expression or relation means, or None where it cannot be read."""
    if APART.fullmatch(key):
        return None
    text = latex(key)
    try:
        return direct(text, key)
    except Refused:
        return algebra.read(text, key)


def direct(text: str, key: str) -> Value:
    """What LaTeX in the small grammar means; raises `Refused` outside it, and where numbers cancel to nothing
    certain.
    """
    try:
        return _meaning(text, key)
    except RecursionError as error:
        raise Refused("too many levels") from error


def _meaning(text: str, key: str) -> Value:
    chain = parse(text)
    sides = [_Written(node=node, text=side) for node, side in zip(chain.sides, chain.texts, strict=True)]
    value = (
        sides[0].value()
        if len(sides) == 1
        else _absolute(sides, chain.signs) or equations.meaning(sides, chain.signs, key)
    )
    return Group(kind="series", items=(value,), ordered=True) if any(map(endless, chain.sides)) else value


def _absolute(sides: "list[_Written]", signs: Sequence[Sign]) -> Value | None:
    """`|x-1| < 2` as the interval that solves it; None where the relation is another."""
    if len(sides) != 2 or signs[0] not in _TURNED:
        return None
    (left, right), sign = sides, signs[0]
    if right.node.op == "abs":
        left, right, sign = right, left, _TURNED[sign]
    if left.node.op != "abs":
        return None
    inside = left.node.parts[0]
    return equations.bounded(
        _Written(node=inside, text=left.text), _Written(node=negative(inside), text=left.text), sign, right
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A side of a relation as a tree, with its text."""

    node: Node
    text: str

    @property
    def name(self) -> str:
        return self.node.name or self.text

    @property
    def symbols(self) -> frozenset[str]:
        return symbols(self.node)

    @property
    def bare(self) -> bool:
        return _bare(self.node)

    def value(self) -> Value:
        table = distributed(self.node)
        if table.op != "table":
            return scalar(self.node, self.symbols)
        cells = tuple(scalar(cell, symbols(cell)) for cell in table.parts)
        return Group(kind=f"matrix {len(cells) // table.number}x{table.number}", items=cells, ordered=True)

    def minus(self, other: Self) -> Scalar | None:
        if "table" in (distributed(self.node).op, distributed(other.node).op):
            return None
        difference = Node(op="+", parts=(self.node, Node(op="-", parts=(other.node,))))
        return scalar(difference, symbols(difference))


def endless(node: Node) -> bool:
    """Whether a formula has a power series in it; endless sums of numbers are for the computer algebra."""
    found = sum(map(endless, node.parts)) > 0
    if node.op in ("sum", "prod") and node.parts[1].op == "infinity":
        if found or not symbols(node):
            raise Refused("an endless sum of numbers, or in another")
        return True
    return found


def _bare(node: Node) -> bool:
    """Whether a formula is made of names only: `x`, `a b`, `f(x)`, `w/z`, `1/x` by its power."""
    match node.op:
        case "symbol" | "applied":
            return True
        case (
            "number"
            | "ratio"
            | "group"
            | "e"
            | "pi"
            | "degree"
            | "-"
            | "ln"
            | "log"
            | "sum"
            | "prod"
            | "table"
        ):
            return False
        case "/":
            return _bare(node.parts[0]) and _bare_parts(node.parts[1])
        case "^":
            return minus_one(node.parts[1]) and _bare_parts(node.parts[0])
        case _:
            return all(map(_bare, node.parts))


def _bare_parts(node: Node) -> bool:
    return node.op == "symbol" or bool(node.parts) and all(map(_bare, node.parts))
