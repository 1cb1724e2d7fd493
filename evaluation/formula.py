"""A formula as a tree, and the few ways of making one that every reader needs."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Sign = Literal["=", "<", "<=", ">", ">=", "!="]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An operation on its parts; `name` is a symbol's name or a function's, `number` a literal's value,
    `decimal` that it has a point.
    """

    op: str
    parts: "tuple[Node, ...]" = ()
    name: str = ""
    number: Fraction = Fraction(0)
    decimal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Sides with signs between them; a single side is an expression. `texts` are the sides as written,
    without spaces.
    """

    sides: tuple[Node, ...]
    signs: tuple[Sign, ...]
    texts: tuple[str, ...]


class Refused(ValueError):
    """The text is outside the grammar."""


def negative(node: Node) -> Node:
    """Minus the formula; a literal keeps its kind."""
    if node.op in ("number", "ratio"):
        return Node(op=node.op, number=-node.number, decimal=node.decimal)
    return Node(op="-", parts=(node,))


def fraction(over: Node, under: Node) -> Node:
    """One formula over another; of two whole numbers, their ratio."""
    whole = [part.parts[0] if part.op == "group" else part for part in (over, under)]
    if all(part.op == "number" and not part.decimal for part in whole) and whole[1].number:
        return Node(op="ratio", number=whole[0].number / whole[1].number)
    return Node(op="/", parts=(over, under))


def minus_one(node: Node) -> bool:
    """Whether a formula is the number -1."""
    inside = node.parts[0] if node.op == "group" else node
    return inside.op == "number" and inside.number == -1
