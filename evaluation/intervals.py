"""Inequalities in one unknown as intervals, so that `x<5` and `(-\\infty,5)` are one answer."""

import itertools
from collections.abc import Sequence

from evaluation.values import EMPTY, Group, Named, Point, Scalar, Value, number, real

_ENDS = {"tuple": (False, False), "(]": (False, True), "[)": (True, False), "[]": (True, True)}
_KINDS = {closed: kind for kind, closed in _ENDS.items()}


def interval(
    low: object, high: object, *, closed: tuple[bool, bool] = (False, False), rough: bool = False
) -> Group:
    """An interval; an open one is written as an ordered pair is, so the two are the same kind."""
    ends = tuple(Scalar(points=(real(end),), rough=rough) for end in (low, high))
    return Group(kind=_KINDS[closed], items=ends, ordered=True)


def unequal(name: str, at: Sequence[Point], residual: Sequence[Point], *, rough: bool) -> Named | None:
    """`residual` other than 0, solved for its only unknown, where the residual is linear."""
    below = solved(name, at, residual, strict=True, rough=rough)
    if below is None or not isinstance(below.value, Group):
        return None
    bound = next(
        end
        for end in below.value.items
        if isinstance(end, Scalar) and number(end) not in (real("inf"), real("-inf"))
    )
    value = without([bound])
    return value and Named(name=name, value=value)


def solved(
    name: str, at: Sequence[Point], residual: Sequence[Point], *, strict: bool, rough: bool
) -> Named | None:
    """`residual < 0` (or <= 0) solved for its only unknown, where the residual is linear; `at` are the
    unknown's values.
    """
    slope = (residual[1] - residual[0]) / (at[1] - at[0])
    if not slope or abs(getattr(slope, "imag", 0)) > 0:
        return None
    line = residual[0] + slope * (at[2] - at[0])
    if abs(line - residual[2]) > real("1e-20") * (1 + abs(line)):
        return None
    bound = (at[0] - residual[0] / slope).real
    if slope.real > 0:
        return Named(name=name, value=interval("-inf", bound, closed=(False, not strict), rough=rough))
    return Named(name=name, value=interval(bound, "inf", closed=(not strict, False), rough=rough))


def without(points: Sequence[Scalar]) -> Group | None:
    """The real numbers but for some of them, as a union of intervals; None where one of them is no real
    number.
    """
    known = {value.real: point for point in points if (value := number(point)) is not None and not value.imag}
    if len(known) == 0 or any(number(point) is None for point in points):
        return None
    ends = [
        Scalar(points=(real("-inf"),)),
        *(known[value] for value in sorted(known)),
        Scalar(points=(real("inf"),)),
    ]
    spans = tuple(Group(kind="tuple", items=pair, ordered=True) for pair in itertools.pairwise(ends))
    return Group(kind="union", items=spans, ordered=False)


def excluded(items: Sequence[Value | None]) -> Named | None:
    """What `x \\ne 1`, `x \\ne 2` leave together; numbers after the first may stand alone (`x \\ne 1, 2`).
    None where there are others among them.
    """
    first = items[0] if items else None
    if not isinstance(first, Named):
        return None
    holes: list[Scalar] = []
    for item in items:
        inside = _holes(item.value) if isinstance(item, Named) and item.name == first.name else None
        holes += inside or ([item] if isinstance(item, Scalar) and holes else [])
        if inside is None and not isinstance(item, Scalar):
            return None
    value = without(holes) if _holes(first.value) else None
    return value and Named(name=first.name, value=value)


def _holes(value: Value) -> list[Scalar] | None:
    """The numbers that a union of open intervals leaves out, or None where it leaves out more."""
    if (
        not isinstance(value, Group)
        or value.kind != "union"
        or not all(isinstance(span, Group) and span.kind == "tuple" for span in value.items)
    ):
        return None
    ends = [
        end
        for span in value.items
        if isinstance(span, Group)
        for end in span.items
        if isinstance(end, Scalar)
    ]
    inner = ends[1:-1]
    whole = len(ends) == 2 * len(value.items) and all(
        a == b for a, b in zip(inner[::2], inner[1::2], strict=True)
    )
    reaches = whole and number(ends[0]) == real("-inf") and number(ends[-1]) == real("inf")
    return inner[::2] if reaches else None


def joined(items: Sequence[Value | None]) -> Named | None:
    """The union of solved inequalities in one unknown; None where there are others among them."""
    spans = _spans(items)
    if spans is None:
        return None
    name, groups = spans
    return Named(name=name, value=Group(kind="union", items=tuple(groups), ordered=False))


def intersection(items: Sequence[Value | None]) -> Named | None:
    """What solved inequalities in one unknown have in common; None where there are others among them."""
    spans = _spans(items)
    if spans is None:
        return None
    name, groups = spans
    low = max(groups, key=lambda g: (_end(g, 0), not _ENDS[g.kind][0]))
    high = min(groups, key=lambda g: (_end(g, 1), _ENDS[g.kind][1]))
    closed = (_ENDS[low.kind][0], _ENDS[high.kind][1])
    if _end(low, 0) > _end(high, 1):
        return Named(name=name, value=EMPTY)
    return Named(
        name=name, value=Group(kind=_KINDS[closed], items=(low.items[0], high.items[1]), ordered=True)
    )


def chained(value: Value) -> Value:
    """A chain of inequalities (`1 < x < 2`) as the interval it describes; anything else as it is."""
    if isinstance(value, Group) and value.kind == "all":
        return intersection(value.items) or value
    return value


def _spans(items: Sequence[Value | None]) -> tuple[str, list[Group]] | None:
    """The common name and the intervals of solved inequalities."""
    named = [
        item
        for item in items
        if isinstance(item, Named) and isinstance(item.value, Group) and item.value.kind in _ENDS
    ]
    if len(named) != len(items) or len(named) < 2 or len({item.name for item in named}) > 1:
        return None
    groups = [item.value for item in named if isinstance(item.value, Group)]
    return (named[0].name, groups) if all(_numbers(group) for group in groups) else None


def _numbers(group: Group) -> bool:
    return all(isinstance(end, Scalar) and number(end) is not None for end in group.items)


def _end(group: Group, side: int) -> Point:
    end = group.items[side]
    assert isinstance(end, Scalar), "the ends of a span are numbers"
    found = number(end)
    assert found is not None, "the ends of a span are numbers"
    return found.real
