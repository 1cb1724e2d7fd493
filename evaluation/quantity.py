"""Numbers with a unit, and when two of them are close enough to be one answer."""

import re
from collections.abc import Sequence
from fractions import Fraction

from evaluation.forms import plain
from evaluation.normal import MAX_ANSWER_CHARS, normalise
from evaluation.units import Unit, measured
from evaluation.values import Named, Scalar

_NAMED = re.compile(r"[^=<>]{1,60}=(?=[^=<>]+$)")
_LED = re.compile(r"([-+]?[\d.,]+(?:e[-+]?\d+)?) ?([^\d\s].*)", re.IGNORECASE | re.DOTALL)


def quantity(answer: str, unit: str | None) -> Fraction | None:
    """The number that an answer is, in `unit` where that is given: an answer that names another one is
    converted; None where it measures something else, or is no number.
    """
    found = _scalar(answer) if len(answer) <= MAX_ANSWER_CHARS else None
    if found is None or found.exact is None:
        return None
    wanted = measured_in(unit)
    if found.unit is None or wanted is None:
        return found.exact
    if found.unit.measures != wanted.measures:
        return None
    return found.exact * found.unit.size / wanted.size


def measured_in(unit: str | None) -> Unit | None:
    """What a unit measures; None where it is not in the table of `units`, and then contradicts nothing."""
    return measured(normalise(unit)) if unit else None


def close(a: Fraction, b: Fraction, *, relative: float, absolute: float) -> bool:
    """Whether `b` is within either tolerance of `a`, which the relative one is a share of."""
    return abs(a - b) <= max(Fraction(str(relative)) * abs(a), Fraction(str(absolute)))


def classes(
    values: Sequence[Fraction | None], *, relative: float, absolute: float
) -> tuple[int | None, ...]:
    """The class of each value, whatever their order: from the smallest on, each class holds what is close to
    its smallest.
    """
    labels: dict[Fraction, int] = {}
    first: Fraction | None = None
    for value in sorted({v for v in values if v is not None}):
        if first is None or not close(first, value, relative=relative, absolute=absolute):
            first = value
            labels[value] = len(set(labels.values()))
        else:
            labels[value] = labels[first]
    return tuple(None if value is None else labels[value] for value in values)


def _scalar(answer: str) -> Scalar | None:
    key = _NAMED.sub("", normalise(answer), count=1).strip()
    value = plain(key)
    if value is None and (led := _LED.fullmatch(key)):  # a unit that `plain` does not know: 9.8 m/s^2
        number = plain(led[1])
        unit = measured(led[2])
        value = Scalar(exact=number.exact, unit=unit) if isinstance(number, Scalar) and unit else None
    value = value.value if isinstance(value, Named) else value
    return value if isinstance(value, Scalar) else None
