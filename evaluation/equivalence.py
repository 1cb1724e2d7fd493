"""What an answer means, and whether two mean the same; for worker processes only, where a time and a memory
limit hold.

An answer is taken apart as text (`structure`), its innermost parts are read as mathematics (`algebra`), plain
numbers and words are settled before that (`forms`). Ordered and unordered collections differ: `(1,2)` is not
`\\{1,2\\}`.
"""

import re
from functools import lru_cache

from evaluation import values
from evaluation.expression import expression_value
from evaluation.families import renamed
from evaluation.forms import ENDLESS, EXTREMUM, MARKUP, asked_for, exception, plain
from evaluation.intervals import chained, excluded, intersection, interval, joined, without
from evaluation.normal import MAX_ANSWER_CHARS, normalise
from evaluation.notation import cut, number_system
from evaluation.structure import Outline, equation, outline, signs, split
from evaluation.units import measured
from evaluation.values import EMPTY, Family, Group, Named, Relation, Scalar, Text, Value

MAX_DEPTH = 8
_NAME = re.compile(
    r"\\?[A-Za-z]+(?: ?\{\\?[A-Za-z]+\})?'*(?: ?[_^] ?(?:\{[^{}]*\}|\w))*(?: ?\([^()]*\))?"
    r"|\[?[A-Za-z.\\{} _]+\]?(?:_\{?\w\}?)?"
)
_FUNCTION = re.compile(r"\\(?:log|ln|exp|(?:arc)?(?:sin|cos|tan|sec|csc|cot)h?)(?![a-zA-Z])")
_MEMBER = re.compile(r"\\in(?![a-zA-Z])|\\backepsilon(?![a-zA-Z])")
_RELATION = re.compile(r"=|<|>|\\(?:neq?|leq?|geq?|lt|gt|equiv|approx)(?![a-zA-Z])")
_WITHOUT = re.compile(
    r"(?:[a-z] ?\\in ?)?(?:\\mathbb ?\{?R\}?|\(-\\infty,\+?\\infty\)) ?(?:\\setminus|\\backslash"
    r"|-) ?(\\\{.+\\\})"
)
_NOTHING = re.compile(r"\\(?:emptyset|varnothing|oslash)(?![a-zA-Z])|\\\{ ?\\\}")


def same(a: str, b: str) -> bool:
    """Whether two answers mean the same; symmetric. Neither is the same as anything if it cannot be read."""
    if normalise(a) == normalise(b) != "":
        return True
    left, right = understand(a), understand(b)
    return left is not None and right is not None and values.same(left, right)


@lru_cache(maxsize=4096)
def understand(answer: str) -> Value | None:
    """What an answer means, or None where it cannot be read."""
    key = normalise(answer[: MAX_ANSWER_CHARS + 1])
    if not key or len(answer) > MAX_ANSWER_CHARS:
        return None
    family = renamed(key)
    if family is None:
        return _read(key, 0)
    written, usual = (_read(text, 0) for text in family)
    known = written is not None and usual is not None
    return Family(written=written, renamed=usual) if known else _read(key, 0)


def _read(key: str, depth: int) -> Value | None:
    key = key.strip()
    if not key or depth > MAX_DEPTH:
        return None
    value = plain(key)
    if value is not None:
        return value
    key, unit = cut(key)
    value = _bare(key, depth)
    return value and values.in_unit(value, measured(unit))


def _bare(key: str, depth: int) -> Value | None:
    """What an answer without its unit means."""
    marked = MARKUP.fullmatch(key)
    if marked:
        return _read(marked[1], depth + 1)
    called = asked_for(key)
    if called:
        value = _read(called[1], depth + 1)
        return value and Named(name=called[0], value=value)
    left_out = exception(key) or ((found := _WITHOUT.fullmatch(key)) and found[1])
    if left_out:
        return _all_but(left_out, depth)
    solutions = _solutions(key, depth)
    if solutions is not None:
        return solutions
    if _NOTHING.fullmatch(key):
        return EMPTY
    if number_system(key):
        return (
            interval("-inf", "inf")
            if number_system(key) == "R"
            else Group(kind=f"numbers {number_system(key)}", items=(), ordered=True)
        )
    if ENDLESS.search(key):
        return _endless(key, depth)
    shape = outline(key)
    if shape is not None and shape.kind in ("list", "set"):
        return _collection(shape, depth)
    extremum = EXTREMUM.fullmatch(key)
    if extremum:
        place = _read(extremum[3], depth + 1)
        return place and Named(name=f"{extremum[1].lower()} at {extremum[2]}", value=place)
    readings = signs(key)
    if len(readings) > 1:
        items = [_read(reading, depth + 1) for reading in readings]
        return excluded(items) or _set(items)
    return _member(key, depth) or (_shaped(shape, depth) if shape else _relation(key, depth))


def _collection(shape: Outline, depth: int) -> Value | None:
    """A list or set; inequalities joined by "or" and "and" are the union and the intersection of what solves
    them.
    """
    items = [_read(reading, depth + 1) for part in shape.parts for reading in signs(part)]
    if shape.joined_by != "or":
        items = [item for item in items if not _anything(item, items)]
    others = None if shape.joined_by == "or" else excluded(items)
    if others is not None:
        return others
    logical = _logical(shape, items) if shape.logical else None
    if logical is not None:
        return logical
    if shape.joined_by == "or":
        return joined(items) or _set(items)
    if shape.joined_by == "and":
        return intersection(items) or _set(items)
    return _set(items)


def _anything(value: Value | None, others: list[Value | None]) -> bool:
    """Whether a part only says that an unknown is real, of which another says more: `x \\in \\mathbb{R}, x
    \\ne 2`.
    """
    if not isinstance(value, Named) or not values.same(value.value, interval("-inf", "inf")):
        return False
    return any(
        isinstance(other, Named) and other is not value and other.name == value.name for other in others
    )


def _all_but(left_out: str, depth: int) -> Value | None:
    """The real numbers without those that are named."""
    value = _read(left_out, depth + 1)
    value = value.value if isinstance(value, Named) else value
    points = list(value.items) if isinstance(value, Group) and value.kind == "set" else [value]
    points = [point.value if isinstance(point, Named) else point for point in points]
    known = [point for point in points if isinstance(point, Scalar)]
    return without(known) if len(known) == len(points) else None


def _solutions(key: str, depth: int) -> Value | None:
    """Several solutions, each with the same names: `p=5,q=2;p=7,q=2`. None where there is no such list."""
    shape = outline(key) if key.count("=") >= 4 else None
    sides = [equation(part) for part in shape.parts] if shape and shape.kind in ("list", "set") else []
    if not sides or not all(len(pair) == 2 and _NAME.fullmatch(pair[0]) for pair in sides):
        return None
    names = [pair[0] for pair in sides]
    size = len(set(names))
    if (
        size < 2
        or size == len(names)
        or len(names) % size
        or any(sorted(names[i : i + size]) != sorted(names[:size]) for i in range(0, len(names), size))
    ):
        return None
    items = [_read(part, depth + 1) for part in shape.parts] if shape else []
    return _set([_set(items[i : i + size]) for i in range(0, len(items), size)])


def _logical(shape: Outline, items: list[Value | None]) -> Value | None:
    """Claims joined by a sign of logic: which sign it is counts, unless each is an equation or a solved
    inequality.
    """
    known = tuple(item for item in items if item is not None)
    if len(known) < len(items) or all(isinstance(item, Named | Relation) for item in known):
        return None
    return Group(kind=f"logical {shape.joined_by}", items=known, ordered=False)


def _set(items: list[Value | None]) -> Value | None:
    known: list[Value] = []
    for item in items:
        if item is None:
            return None
        if values.place(item, known) == len(known):
            known.append(item)
    return known[0] if len(known) == 1 else Group(kind="set", items=tuple(known), ordered=False)


def _shaped(shape: Outline, depth: int) -> Value | None:
    items = [_read(part, depth + 1) for part in shape.parts if part or shape.kind != "cases"]
    match shape.kind:
        case "such that":
            return _such_that(shape, items)
        case "range of unions":
            inside = items[1]
            return inside and Group(kind=f"union over {shape.parts[0]}", items=(inside,), ordered=True)
        case "matrix":
            kind = f"matrix {len(shape.parts) // shape.columns}x{shape.columns}"
        case "union":
            kind = "union"
        case _:
            kind = shape.kind
    known = tuple(item for item in items if item is not None)
    return Group(kind=kind, items=known, ordered=kind != "union") if len(known) == len(items) else None


def _such_that(shape: Outline, items: list[Value | None]) -> Value | None:
    """A set by its condition: an interval where the condition solves to one, else the element and the
    condition together.
    """
    name = split(shape.parts[0], _MEMBER)[0].strip()
    condition = items[1]
    if isinstance(condition, Named) and condition.name == name and condition.residual is None:
        return condition
    element = items[0]
    return (
        None
        if element is None or condition is None
        else Group(kind="such that", items=(element, condition), ordered=True)
    )


def _member(key: str, depth: int) -> Value | None:
    """`x \\in [1,2]` is the interval, under the name x."""
    sides = split(key, _MEMBER)
    if len(sides) != 2 or not sides[0].strip():
        return None
    value = _read(sides[1], depth + 1)
    return None if value is None else Named(name=sides[0].strip(), value=value)


def _relation(key: str, depth: int) -> Value | None:
    """An expression or relation; where one side is a collection, or the left one a name that the computer
    algebra cannot read, by sides.
    """
    sides = equation(key)
    right = outline(sides[-1]) if len(sides) == 2 else None
    if right is None:
        value = expression_value(key)
        if value is not None and not isinstance(value, Text):
            return chained(value)
        if value is not None and len(sides) == 1:
            return value
    if len(sides) != 2 or (right is None and _RELATION.search(sides[1])):
        return None if len(sides) == 1 else _false_or_chain(sides, depth)
    left = outline(sides[0])
    value = _read(sides[1], depth + 1)
    if value is None:
        return None
    if left and left.kind == "tuple" and isinstance(value, Group) and len(left.parts) == len(value.items):
        each = tuple(Named(name=n, value=v) for n, v in zip(left.parts, value.items, strict=True))
        return Named(name=sides[0], value=value, parts=each)
    return (
        Named(name=sides[0], value=value)
        if _NAME.fullmatch(sides[0]) and not _FUNCTION.match(sides[0])
        else _false_or_chain(sides, depth)
    )


def _false_or_chain(sides: tuple[str, ...], depth: int) -> Value | None:
    """A chain of equal values is that value; a false one is only text."""
    read = [_read(side, depth + 1) for side in sides]
    if any(value is None for value in read):
        return None
    known = [value for value in read if value is not None]
    return known[-1] if all(values.same(known[0], value) for value in known) else Text(text="=".join(sides))


def _endless(key: str, depth: int) -> Value | None:
    """An expansion that goes on is what is written of it, and differs from the same terms alone."""
    value = _read(ENDLESS.sub("", key), depth + 1)
    return value and Group(kind="and so on", items=(value,), ordered=True)
