"""Plain numbers as people write them: decimals, fractions, mixed numbers, powers of ten, repeating decimals,
angles.

Everything here is pure and bounded: nothing is evaluated.
"""

import re
from decimal import Decimal
from fractions import Fraction

from evaluation.units import DEGREE
from evaluation.values import Scalar

MAX_EXPONENT = 400
"""Larger powers of ten are left to the worker, where a limit holds."""
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(
    rf"([+-]?)({_UNSIGNED})(?:(?:[eE]| ?(?:\\times|\\cdot|\*|x) ?10\^)\{{?([+-]?\d{{1,6}})\}}?)?"
)
_RATIO = re.compile(
    r"([+-]?)(?:(\d+)(?: ?(?=\\frac)| (?=\d+/)))?(?:\\frac\{(-?\d+)\}\{(-?\d+)\}|\\frac ?(\d) ?(\d)"
    r"|(\d+)/(-?\d+))"
)
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar|dot) ?\{(\d+)\}")
_SPACED = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_MINUTES, _SECONDS = r"(?:'|\^ ?\{?\\prime ?\}?)", r"(?:''|\"|\^ ?\{\\prime ?\\prime ?\})"
_ANGLE = re.compile(
    rf"(-?)(\d+) ?\^ ?\{{?\\circ ?\}}? ?(\d+(?:\.\d+)?) ?{_MINUTES}(?: ?(\d+(?:\.\d+)?) ?{_SECONDS})?"
)


def number(text: str) -> Scalar | None:
    return (
        _decimal(text.replace(" ", "") if _SPACED.fullmatch(text) else text)
        or _ratio(text)
        or _repeating(text)
        or _angle(text)
    )


def _decimal(text: str) -> Scalar | None:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        return None
    sign, digits, exponent = found[1], found[2].replace(",", ""), int(found[3] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    whole, _, part = digits.partition(".")
    exact = Fraction(Decimal(f"{sign}{digits}")) * Fraction(10) ** exponent
    num_places = len(part) - exponent
    long = "." in digits and len((whole + part).lstrip("0")) >= 6 and num_places >= 4
    return Scalar(exact=exact, slack=Fraction(1, 2) / Fraction(10) ** num_places if long else Fraction(0))


def _ratio(text: str) -> Scalar | None:
    found = _RATIO.fullmatch(text)
    if found is None:
        return None
    over, under = int(found[3] or found[5] or found[7]), int(found[4] or found[6] or found[8])
    if under == 0 or (found[2] and (over < 0 or under < 0)):
        return None
    magnitude = Fraction(over, under) + int(found[2] or 0)
    return Scalar(exact=-magnitude if found[1] == "-" else magnitude)


def _repeating(text: str) -> Scalar | None:
    found = _REPEATING.fullmatch(text)
    if found is None:
        return None
    once = Fraction(int(found[2] + found[3] or "0"))
    cycle = Fraction(int(found[4]), 10 ** len(found[4]) - 1)
    magnitude = (once + cycle) / 10 ** len(found[3])
    return Scalar(exact=-magnitude if found[1] == "-" else magnitude)


def _angle(text: str) -> Scalar | None:
    """Degrees, minutes and seconds, in degrees."""
    found = _ANGLE.fullmatch(text)
    if found is None:
        return None
    magnitude = Fraction(found[2]) + Fraction(found[3]) / 60 + Fraction(found[4] or 0) / 3600
    return Scalar(exact=-magnitude if found[1] else magnitude, unit=DEGREE)
