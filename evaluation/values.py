"""What an answer means: a small closed set of values and the symmetric relation `same` between them.

A value is made once per answer (`forms.plain` for numbers and words, `equivalence.understand` for LaTeX);
comparing two values is then cheap, because an expression is remembered by its values at fixed points: two
expressions that agree to 18 digits at three irrational-looking points are the same function. `same` is an
equivalence but for two documented courtesies: a name may be left out (`x=5`, `5`, `y=5`; `11_2`, `11`,
`11_3`; `a=1, b=2`, `(a,b)=(1,2)`, `(1,2)`; `5 cm`, `5`, `5 m`), and a decimal of at least six digits stands
for what rounds to it (`0.333333`, `1/3`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from evaluation.scalars import (
    Point,
    Scalar,
    aligned,
    complex_number,
    number,
    proportional,
    real,
    same_scalar,
    within,
)
from evaluation.units import Unit

__all__ = [
    "EMPTY", "Family", "Group", "Named", "Opaque", "Point", "Relation", "Scalar", "Text", "Value",
    "aligned", "complex_number",
    "describe", "in_unit", "number", "place", "real", "same", "same_within",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Words, a time of day, or prose and formulas without a meaning of their own (`3>2`): equal only as
    normal text.
    """

    text: str
    kind: Literal["words", "time", "prose"] = "prose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """`residual` compared with zero: an equation or an inequality with at least one unknown."""

    kind: Literal["=", "<", "<=", "!="]
    residual: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A value with a name (`x = 5`, `f(x) = x^2`, `11` in base 2); `residual` is the equation behind it, if
    there is one.

    `(a,b) = (1,2)` has the two named values as its `parts`.
    """

    name: str
    value: "Value"
    residual: Scalar | None = None
    parts: "tuple[Named, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Several values: a set, list, pair, interval, matrix or chain of relations; `kind` keeps those apart."""

    kind: str
    items: "tuple[Value, ...]"
    ordered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """An expression that has no numbers to compare; `agree` is the computer algebra's judgement of two such
    expressions.
    """

    expression: object
    agree: Callable[[object, object], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """An answer with a free integer, as it was `written`, and with the integer under its usual name."""

    written: "Value"
    renamed: "Value"


Value = Scalar | Text | Relation | Named | Group | Opaque | Family
EMPTY = Group(kind="set", items=(), ordered=False)


def same(a: Value, b: Value) -> bool:
    """Whether two answers mean the same; symmetric."""
    if isinstance(a, Family) or isinstance(b, Family):
        return any(same(x, y) for x, y in zip(_readings(a), _readings(b), strict=True))
    if isinstance(a, Named) or isinstance(b, Named):
        return _same_named(a, b)
    match a:
        case Scalar():
            return isinstance(b, Scalar) and same_scalar(a, b)
        case Text():
            return isinstance(b, Text) and a.text == b.text
        case Relation():
            return (
                isinstance(b, Relation)
                and a.kind == b.kind
                and proportional(a.residual, b.residual, a.kind in ("<", "<="))
            )
        case Group():
            return isinstance(b, Group) and _same_group(a, b)
        case Family() | Named():
            raise AssertionError("handled above")
        case Opaque():
            return isinstance(b, Opaque) and (
                a.agree(a.expression, b.expression) or a.agree(b.expression, a.expression)
            )
        case _:
            assert_never(a)


def _readings(value: Value) -> tuple[Value, Value]:
    return (value.written, value.renamed) if isinstance(value, Family) else (value, value)


def same_within(truth: Value, answer: Value, tolerance: float) -> bool:
    """Whether an answer equals the true one, or is a number at most that far from it, relatively."""
    if same(truth, answer):
        return True
    ours, theirs = (value.value if isinstance(value, Named) else value for value in (truth, answer))
    return (
        bool(tolerance)
        and isinstance(ours, Scalar)
        and isinstance(theirs, Scalar)
        and within(ours, theirs, tolerance)
    )


def describe(value: Value) -> str:
    """What kind of answer a value is, in a word."""
    match value:
        case Scalar():
            return "number" if value.exact is not None or len(value.points) == 1 else "expression"
        case Text():
            return value.kind
        case Relation():
            return "relation"
        case Named():
            return "in base" if value.name.startswith("base ") else "named"
        case Opaque():
            return "symbolic"
        case Family():
            return describe(value.written)
        case Group():
            return _DESCRIPTIONS.get(value.kind) or value.kind.partition(" ")[0]
        case _:
            assert_never(value)


_DESCRIPTIONS = {
    "tuple": "pair", "[]": "interval", "(]": "interval", "[)": "interval", "such that": "set",
    "all": "relation", "and so on": "series",
    "numbers Z": "set", "numbers N": "set", "numbers Q": "set", "numbers C": "set",
}  # fmt: skip


def place(value: Value, representatives: Sequence[Value]) -> int:
    """The class of a value: the first representative it equals, else a new class at the end."""
    return next(
        (label for label, representative in enumerate(representatives) if same(value, representative)),
        len(representatives),
    )


def _same_named(a: Value, b: Value) -> bool:
    """A name counts only against another name; `y = 2x` also equals `x = y/2`, the same equation."""
    if isinstance(a, Named) and isinstance(b, Named):
        if a.name == b.name and same(a.value, b.value):
            return True
        if a.parts and b.parts:
            return _matched(a.parts, b.parts) and _matched(b.parts, a.parts)
        return (
            a.residual is not None and b.residual is not None and proportional(a.residual, b.residual, False)
        )
    named, other = (a, b) if isinstance(a, Named) else (b, a)
    assert isinstance(named, Named), "one of the two is named"
    if named.parts and isinstance(other, Group) and other.kind == "set":
        return _same_group(Group(kind="set", items=named.parts, ordered=False), other)
    if isinstance(other, Relation):
        return (
            other.kind == "="
            and named.residual is not None
            and proportional(named.residual, other.residual, False)
        )
    return same(named.value, other)


def _same_group(a: Group, b: Group) -> bool:
    if (a.kind, b.kind) in (("set", "tuple"), ("tuple", "set")):
        assigned, pair = (a, b) if a.kind == "set" else (b, a)
        return _in_order(assigned, pair)
    if a.kind != b.kind or len(a.items) != len(b.items):
        return False
    if a.ordered:
        return all(same(x, y) for x, y in zip(a.items, b.items, strict=True))
    return _matched(a.items, b.items) and _matched(b.items, a.items)


def _in_order(assigned: Group, pair: Group) -> bool:
    """Whether values of different names, in the order of the names, are those of a pair: `x=3, y=4` and
    `(3,4)`.
    """
    named = [item for item in assigned.items if isinstance(item, Named)]
    names = {item.name for item in named}
    if not len(assigned.items) == len(named) == len(names) == len(pair.items) >= 2:
        return False
    ordered = sorted(named, key=lambda item: item.name)
    return all(same(item.value, other) for item, other in zip(ordered, pair.items, strict=True))


def _matched(left: Sequence[Value], right: Sequence[Value]) -> bool:
    """Whether each value on the left finds a partner of its own on the right."""
    free = list(right)
    for value in left:
        partner = next((i for i, other in enumerate(free) if same(value, other)), None)
        if partner is None:
            return False
        free.pop(partner)
    return True


def in_unit(value: Value, unit: Unit | None) -> Value:
    """A number, or a named one, that is measured in a unit; any other value as it is."""
    if isinstance(value, Scalar) and value.unit is None and unit is not None:
        return dataclasses.replace(value, unit=unit)
    if isinstance(value, Named) and isinstance(value.value, Scalar):
        return dataclasses.replace(value, value=in_unit(value.value, unit))
    return value
