"""Numbers and functions as what they are worth: exact rationals, or values at fixed points, and when two of
them agree.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath

from evaluation.units import DEGREE, Unit

_MP = mpmath.mp.clone()
_MP.dps = 40
_EXACT = _MP.mpf("1e-18")
_ROUGH = _MP.mpf("1e-12")
_NOUGHT = _MP.mpf("1e-20")
Point = mpmath.mpc | mpmath.mpf
Steps = Callable[[frozenset[str]], Sequence[Point | None]]
_FEWEST_STEPS = 6
"""At so many whole numbers at least, two formulas with letters in the bounds of sums must have values to be
compared.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A number, or a function remembered by its values at fixed points.

    `exact` is the number where it is rational and cheap to know; otherwise `points` holds one value (a
    constant) or several (a function of symbols). `slack` is half a unit of the last digit of a long decimal,
    0 otherwise. `rough` says that a decimal with binary rounding is inside. `unit` is what stood after it,
    where that is known. `counted` names stand in the bounds of sums: such a function has no `points` and is
    compared where they are small whole numbers, with `steps`.
    """

    exact: Fraction | None = None
    points: tuple[Point, ...] = ()
    slack: Fraction = Fraction(0)
    rough: bool = False
    unit: Unit | None = None
    counted: frozenset[str] = frozenset()
    steps: "Steps | None" = dataclasses.field(default=None, compare=False, repr=False)


def same_scalar(a: Scalar, b: Scalar) -> bool:
    """Whether two numbers agree; where both have a unit, in that unit; an angle in degrees is also that angle
    in radians.
    """
    if a.unit == b.unit:
        return _same_number(a, b)
    if a.unit is not None and b.unit is not None:
        return a.unit.measures == b.unit.measures and _same_number(
            _times(a, a.unit.size), _times(b, b.unit.size)
        )
    degrees, other = (a, b) if b.unit is None else (b, a)
    return _same_number(a, b) or degrees.unit == DEGREE and _same_number(_times(degrees, DEGREE.size), other)


def _times(scalar: Scalar, size: Fraction) -> Scalar:
    if scalar.exact is not None:
        return dataclasses.replace(scalar, exact=scalar.exact * size, slack=scalar.slack * size)
    return dataclasses.replace(
        scalar, points=tuple(point * _float(size) for point in scalar.points), slack=scalar.slack * size
    )


def _same_number(a: Scalar, b: Scalar) -> bool:
    if a.counted or b.counted:
        return _same_at_steps(a, b)
    slack = max(a.slack, b.slack)
    if a.exact is not None and b.exact is not None:
        return abs(a.exact - b.exact) <= slack
    tolerance = _ROUGH if a.rough or b.rough else _EXACT
    pairs = aligned(a, b)
    margin = _NOUGHT if len(pairs) > 1 else _float(slack)
    return bool(pairs) and all(_near(x, y, tolerance, margin) for x, y in pairs)


def _same_at_steps(a: Scalar, b: Scalar) -> bool:
    """Whether two functions of whole numbers agree wherever both have a value; raises where there are too few
    such numbers to tell.
    """
    letters = a.counted | b.counted
    pairs = zip(_at_steps(a, letters), _at_steps(b, letters), strict=False)
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(known) < _FEWEST_STEPS:
        raise NotImplementedError("a sum or product that has too few values at small whole numbers")
    tolerance = _ROUGH if a.rough or b.rough else _EXACT
    return all(_near(x, y, tolerance, _NOUGHT) for x, y in known)


def _at_steps(scalar: Scalar, letters: frozenset[str]) -> Iterable[Point | None]:
    return scalar.steps(letters) if scalar.steps is not None else itertools.repeat(number(scalar))


def proportional(a: Scalar, b: Scalar, positive: bool) -> bool:
    """Whether a = c b for one constant c other than 0 (above 0 where the direction of an inequality
    matters).
    """
    if a.counted or b.counted:
        raise NotImplementedError("an equation with letters in the bounds of a sum")
    pairs = aligned(a, b)
    if len(pairs) < 2 or any(abs(y) < _NOUGHT or abs(x) < _NOUGHT for x, y in pairs):
        return False
    ratios = [x / y for x, y in pairs]
    tolerance = _ROUGH if a.rough or b.rough else _EXACT
    if any(not _near(ratios[0], ratio, tolerance, _MP.zero) for ratio in ratios):
        return False
    return not positive or _MP.re(ratios[0]) > 0


def aligned(a: Scalar, b: Scalar) -> list[tuple[Point, Point]]:
    """The values of both at the same points; a constant has the same value everywhere."""
    num = max(len(a.points), len(b.points), 1)
    left, right = _spread(a, num), _spread(b, num)
    return list(zip(left, right, strict=True)) if len(left) == len(right) else []


def _spread(scalar: Scalar, num: int) -> tuple[Point, ...]:
    values = scalar.points if scalar.exact is None else (_float(scalar.exact),)
    return values * num if len(values) == 1 else values


def _near(x: Point, y: Point, tolerance: Point, margin: Point) -> bool:
    if not (_MP.isfinite(x) and _MP.isfinite(y)):
        return bool(x == y)
    return bool(abs(x - y) <= max(tolerance * max(abs(x), abs(y)), margin))


def _float(number: Fraction) -> Point:
    return _MP.mpf(number.numerator) / number.denominator


def number(scalar: Scalar) -> Point | None:
    """The value of a constant; None for a function."""
    if scalar.exact is not None:
        return _float(scalar.exact)
    return scalar.points[0] if len(scalar.points) == 1 else None


def real(number: object) -> Point:
    """A real number at the precision of this module."""
    return _MP.mpf(number)


def complex_number(real_part: Point, imaginary_part: Point) -> Point:
    """A complex number at the precision of this module."""
    return _MP.mpc(real_part, imaginary_part)


def within(truth: Scalar, answer: Scalar, tolerance: float) -> bool:
    """Whether a number is at most that far from the true one, relatively; in the unit of both where both have
    one.
    """
    if truth.unit is not None and answer.unit is not None:
        if truth.unit.measures != answer.unit.measures:
            return False
        truth, answer = _times(truth, truth.unit.size), _times(answer, answer.unit.size)
    x, y = number(truth), number(answer)
    return (
        x is not None
        and y is not None
        and bool(_MP.isfinite(x) and _MP.isfinite(y) and abs(x - y) <= tolerance * abs(x))
    )
