"""What a chain of equations and inequalities means, whoever has read its sides."""

import itertools
from collections.abc import Sequence
from typing import Protocol, Self

from evaluation import intervals, values
from evaluation.formula import Sign
from evaluation.points import NUM_POINTS, coordinate
from evaluation.values import Group, Named, Relation, Scalar, Text, Value


class Side(Protocol):
    """One side of a relation, as its reader holds it."""

    @property
    def name(self) -> str:
        """How it is called where it is a name."""

    @property
    def symbols(self) -> frozenset[str]: ...

    @property
    def bare(self) -> bool:
        """Whether it is made of symbols only, so that an equation gives it a value."""

    def value(self) -> Value: ...

    def minus(self, other: Self) -> Scalar | None:
        """The numbers of the difference, or None where it has none."""


def meaning(sides: Sequence[Side], signs: Sequence[Sign], key: str) -> Value:
    """An assignment is a named value, a true equation of numbers is its value, other relations are compared
    as relations.
    """
    first, last = sides[0], sides[-1]
    if all(sign == "=" for sign in signs):
        if first.bare and first.symbols:
            return Named(name=first.name, value=last.value(), residual=first.minus(last))
        if not any(side.symbols for side in sides):
            true = all(_equal(left, right) for left, right in itertools.pairwise(sides))
            return last.value() if true else Text(text=key)
    relations = [_relation(*link) for link in zip(sides[:-1], signs, sides[1:], strict=True)]
    known = [relation for relation in relations if relation is not None]
    if len(known) < len(relations):
        return Text(text=key)
    return known[0] if len(known) == 1 else Group(kind="all", items=tuple(known), ordered=False)


def _equal(left: Side, right: Side) -> bool:
    x, y = left.value(), right.value()
    return isinstance(x, Scalar) and isinstance(y, Scalar) and values.same(x, y)


def _relation(left: Side, sign: Sign, right: Side) -> Relation | Named | None:
    """The relation as `residual` against zero, or None where it has no unknown or no numbers; in one unknown
    and linear, what solves it.
    """
    if sign in (">", ">="):
        left, sign, right = right, "<" if sign == ">" else "<=", left
    names = left.symbols | right.symbols
    residual = left.minus(right) if names else None
    if residual is None:
        return None
    kind = "=" if sign == "=" else "!=" if sign == "!=" else "<" if sign == "<" else "<="
    return (None if kind == "=" else _solved(names - {"i"}, residual, kind)) or Relation(
        kind=kind, residual=residual
    )


def _solved(names: frozenset[str], residual: Scalar, kind: Sign) -> Named | None:
    """An inequality in one unknown that is linear in it, as the interval or the union that solves it."""
    if len(names) != 1 or len(residual.points) != NUM_POINTS:
        return None
    (name,) = names
    at = [
        values.real(number.numerator) / number.denominator
        for number in (coordinate(name, point) for point in range(NUM_POINTS))
    ]
    if kind == "!=":
        return intervals.unequal(name, at, residual.points, rough=residual.rough)
    return intervals.solved(name, at, residual.points, strict=kind == "<", rough=residual.rough)


def bounded(inside: Side, minus: Side, sign: Sign, bound: Side) -> Named | None:
    """The absolute value of `inside` (whose negative is `minus`) against a positive number, solved; None
    where it is not linear.
    """
    size = bound.value()
    found = values.number(size) if isinstance(size, Scalar) and not bound.symbols else None
    if found is None or found.imag or found.real <= 0:
        return None
    both = [_relation(side, sign, bound) for side in (inside, minus)]
    return intervals.intersection(both) if sign in ("<", "<=") else intervals.joined(both[::-1])
