"""Units after a number: where they begin, and what they measure where that is known.

A trailing run of units is found item by item, from left to right and never back, because the text is a
model's and may be nothing but units. What a unit measures (length to the first power, a hundredth) lets `1.5
m` equal `150 cm` and keeps `15 cm` from `15 m`; a unit that is not in the small table below means nothing,
and contradicts nothing.
"""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_DEGREE = Fraction(314159265358979323846264338327950288419716939937510, 180 * 10**50)
"""A degree in radians, far beyond the digits that are compared."""
_BASE = {
    "m": ({"length": 1}, 1), "g": ({"mass": 1}, 1), "s": ({"time": 1}, 1), "L": ({"length": 3}, "0.001"),
    "l": ({"length": 3}, "0.001"),
    "N": ({"mass": 1, "length": 1, "time": -2}, 1000), "J": ({"mass": 1, "length": 2, "time": -2}, 1000),
    "Hz": ({"time": -1}, 1),
    "W": ({"mass": 1, "length": 2, "time": -3}, 1000), "Pa": ({"mass": 1, "length": -1, "time": -2}, 1000),
    "V": ({"voltage": 1}, 1), "A": ({"current": 1}, 1), "\\Omega": ({"resistance": 1}, 1),
}  # fmt: skip
_PREFIXES = {
    "n": "1e-9",
    "\\mu": "1e-6",
    "m": "1e-3",
    "c": "1e-2",
    "d": "1e-1",
    "": 1,
    "k": 1000,
    "M": "1e6",
    "G": "1e9",
}
_OTHERS = {
    "in": ({"length": 1}, "0.0254"), "ft": ({"length": 1}, "0.3048"), "yd": ({"length": 1}, "0.9144"),
    "mi": ({"length": 1}, "1609.344"),
    "lb": ({"mass": 1}, "453.59237"), "oz": ({"mass": 1}, "28.349523125"), "gal": ({"gallons": 1}, 1),
    "min": ({"time": 1}, 60), "h": ({"time": 1}, 3600), "day": ({"time": 1}, 86400),
    "week": ({"time": 1}, 604800),
    "month": ({"months": 1}, 1), "year": ({"months": 1}, 12), "deg": ({"angle": 1}, _DEGREE),
    "rad": ({"angle": 1}, 1),
    "\\circ": ({"angle": 1}, _DEGREE), "C": ({"celsius": 1}, 1), "F": ({"fahrenheit": 1}, 1),
    "K": ({"kelvin": 1}, 1),
    "dollar": ({"money": 1}, 1), "cent": ({"money": 1}, "0.01"),
    "mph": ({"length": 1, "time": -1}, "0.44704"),
}  # fmt: skip
_WRITTEN_OUT = {
    "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre",
    "km": "kilometer kilometre", "in": "inch inches", "ft": "foot feet",
    "yd": "yard", "mi": "mile", "g": "gram", "mg": "milligram", "kg": "kilogram", "lb": "pound",
    "oz": "ounce", "s": "second sec", "ms": "millisecond",
    "min": "minute", "h": "hour hr", "day": "day", "week": "week", "month": "month", "year": "year",
    "L": "liter litre", "mL": "milliliter millilitre ml",
    "gal": "gallon", "deg": "degree", "rad": "radian", "dollar": "dollar", "cent": "cent", "Hz": "hertz",
    "N": "newton", "J": "joule", "W": "watt",
    "V": "volt", "A": "amp ampere", "\\Omega": "ohm", "Pa": "pascal", "kW": "kilowatt", "kJ": "kilojoule",
}  # fmt: skip
_KNOWN = {
    prefix + symbol: (powers, Fraction(factor) * Fraction(size))
    for symbol, (powers, size) in _BASE.items()
    for prefix, factor in _PREFIXES.items()
}
_KNOWN |= {name: (powers, Fraction(size)) for name, (powers, size) in _OTHERS.items()}
_KNOWN |= {
    word + plural: _KNOWN[name]
    for name, words in _WRITTEN_OUT.items()
    for word in words.split()
    for plural in ("", "s")
}
_AHEAD = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}

UNIT_NAMES = (
    "square|cubic|sq|cu|meters?|metres?|centimeters?|centimetres?|millimeters?|millimetres?|kilometers?"
    "|kilometres?|inch|inches|feet|foot|yards?|miles?"
    "|seconds?|sec|minutes?|min|hours?|hrs?|days?|weeks?|months?|years?|radians?|rad|degrees?|deg|units?"
    "|dollars?|cents?|pounds?|lbs?|ounces?"
    "|grams?|kilograms?|liters?|litres?|gallons?|newtons?|joules?|watts?|volts?|amps?|ohms?|hertz|people"
    "|per|mph|cm|mm|km|kg|ft|in|mi|yd|gal"
    "|ways|times|pens|diners|bacteria|percent|ml|mL|foot-pounds|rpm|psi"
)
UNITS = re.compile(UNIT_NAMES, re.IGNORECASE)
FONT = r"\\(?:text|textrm|textnormal|textbf|textit|mathrm|mathbf|mathit|mathsf|mbox|rm|operatorname)"
_MARKED = FONT + r" ?\{(?![iejxyztnkabc]\})(?:[^{}\\\d^=<>]|\\mu(?![a-z])|\^ ?-?\d|\^\{-?\d\}){0,40}+\}"
_VECTOR = r"(?!\\math(?:bf|it|sf) ?\{ ?[A-Za-z] ?\})"
"""One bold or slanted letter is a vector or a variable, not a unit."""
_UNIT = (
    rf"(?:{_VECTOR}(?:\\mu ?)?{_MARKED}|(?:[kMG]|{FONT} ?\{{ ?[kMG] ?\}} ?)?\\Omega(?![a-zA-Z])"
    rf"|(?<![A-Za-z\\])(?:{UNIT_NAMES})(?![A-Za-z])"
    r"|\^ ?\{? ?\\circ ?\}?(?: ?[CF](?![A-Za-z]))?)(?: ?\^ ?(?:\{-?\d\}|\d))?"
)
_PER = rf"\\frac ?\{{ ?{_MARKED} ?\}} ?\{{ ?{_MARKED}(?: ?\^ ?\{{?\d\}}?)? ?\}}"
_ITEM = re.compile(rf" ?[-/.~*]? ?(?:\\cdot ?|per )?(?:{_UNIT}|{_PER})")
_NAME = r"[kMG]?\\Omega|(?:\\mu ?)?[A-Za-z]+|\^ ?\{? ?\\circ"
_PART = re.compile(rf"\\cdot|[{{}} ~*.-]|(?P<divided>/|per\b)|(?P<name>{_NAME})|\^ ?\{{?(?P<power>-?\d)\}}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What is measured, as powers of a few base quantities, and how many of the base units this is."""

    measures: tuple[tuple[str, int], ...]
    size: Fraction


DEGREE = Unit(measures=(("angle", 1),), size=_DEGREE)
MINUTE = Unit(measures=(("time", 1),), size=Fraction(60))


def trailing(text: str) -> int | None:
    """Where the run of units at the end of a text begins; None where it does not end in one. A run after `_`
    or `^` is an index.
    """
    starts: list[int] = []
    end = 0
    for item in _ITEM.finditer(text):
        if item.start() > end:
            starts.clear()
        starts.append(item.start())
        end = item.end()
    if end < len(text):
        return None
    return next((start for start in starts if text[start - 1 : start] not in ("_", "^")), None)


@lru_cache(maxsize=1024)
def measured(text: str) -> Unit | None:
    """What a run of units measures; None where a part of it is unknown, so that it contradicts nothing."""
    powers: Counter[str] = Counter()
    size = Fraction(1)
    factors = _factors(text)
    for base, factor, power in factors or ():
        if abs(power) > 9:
            return None
        size *= factor**power
        for name, times in base.items():
            powers[name] += times * power
    return (
        Unit(measures=tuple(sorted((name, power) for name, power in powers.items() if power)), size=size)
        if factors
        else None
    )


def _factors(text: str) -> list[tuple[dict[str, int], Fraction, int]] | None:
    """The known units of a run, each with its power; None where something else is among them, or more than a
    few.
    """
    found: list[tuple[dict[str, int], Fraction, int]] = []
    text = re.sub(r"\\frac ?(\{[^}]*\} ?\}?) ?\{", r"\1/", text)
    text = re.sub(r"(?<=[kMG]) ?\} ?(?=\\Omega)", "", re.sub(rf"{FONT} ?\{{ ?", "", text))
    sign, ahead, at = 1, 1, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or len(found) > 8:
            return None
        at = part.end()
        if part["divided"]:
            sign = -1
        elif part["power"] and found:
            base, size, power = found[-1]
            found[-1] = (base, size, power * int(part["power"]))
        elif part["name"] in ("unit", "units"):
            continue
        elif part["name"] in _AHEAD:
            ahead = _AHEAD[part["name"]]
        elif part["name"]:
            name = part["name"].replace(" ", "").lstrip("^{")
            known = _KNOWN.get(name) or (_KNOWN.get(name.lower()) if len(name) > 3 else None)
            if known is None:
                return None
            if found and name in ("C", "F") and found[-1][0] == {"angle": 1}:  # a degree sign before C or F
                found.pop()
            found.append((*known, sign * ahead))
            ahead = 1
        elif part["power"]:
            return None
    return found
