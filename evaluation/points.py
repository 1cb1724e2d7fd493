"""The values of a formula at fixed points, in bounded time and space whatever it says.

Every value is computed at two precisions; where they disagree, digits have cancelled and the computer algebra
must say what is left. Nothing here is ever larger than 2 to the power `MAX_BITS`: a tower of exponents is
refused before it is computed.
"""

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction

import mpmath

from evaluation import values
from evaluation.formula import Node, Refused
from evaluation.repeated import MAX_DEGREE, counted, degree, polynomial_sum, steps
from evaluation.values import Point, Scalar

NUM_POINTS = 3
MAX_BITS = 2**24
_EXACT_BITS = 2048
_MAX_ARGUMENT = 128
_MAX_STEPS = 20_000
MAX_TERMS = 10**7
"""Longer sums are left to nobody: the computer algebra guesses at them."""
NUM_TERMS = 12
"""A power series is remembered by its first terms."""
_COARSE, _FINE = mpmath.mp.clone(), mpmath.mp.clone()
_COARSE.dps, _FINE.dps = 45, 75
_AGREE = mpmath.mpf("1e-32")
_MAX_TIMES = 10**12
"""Of a base rounded to 45 digits, so high a power has 33 digits that are right."""

Number = Fraction | mpmath.mpf | mpmath.mpc


class TooLarge(ArithmeticError):
    """A number beyond `MAX_BITS`: no answer to any problem, and not worth its time."""


def coordinate(name: str, point: int) -> Fraction:
    """A fixed number for a symbol, unlike any a person writes: positive at the first points, negative at the
    last.
    """
    digest = hashlib.sha256(f"{name} {point}".encode()).digest()
    size = Fraction(int.from_bytes(digest[:16], "big"), 2**128) * 2 + Fraction(3, 10)
    return -size if point == NUM_POINTS - 1 else size


def rough(node: Node) -> bool:
    """Whether a decimal is inside."""
    return node.decimal or any(map(rough, node.parts))


def scalar(node: Node, names: frozenset[str]) -> Scalar:
    """The formula's numbers at the points that its own or a wider set of names needs; raises `Refused` where
    it has none that are certain.
    """
    unsure = rough(node)
    letters = counted(node)
    if letters:
        return Scalar(steps=_at_steps(node, names), counted=letters, rough=unsure)
    found = [_certain(node, point, names) for point in range(NUM_POINTS if names - {"i"} else 1)]
    if not names and not unsure and isinstance(found[0], Fraction):
        return Scalar(exact=found[0])
    return Scalar(
        points=tuple(_point(number) for number in found),
        rough=unsure,
        steps=_at_steps(node, names) if names else None,
    )


def _at_steps(node: Node, names: frozenset[str]) -> Callable[[frozenset[str]], list[Point | None]]:
    """The formula's values with small whole numbers for some names, when they are asked for; None where it
    has none.
    """

    def value(whole: Mapping[str, Fraction]) -> Point | None:
        try:
            return _point(_certain(node, 0, names, whole))
        except Refused:
            return None

    return lambda letters: [value(whole) for whole in steps(letters)]


def _certain(
    node: Node, point: int, names: frozenset[str], whole: Mapping[str, Fraction] | None = None
) -> Number:
    """The value at a point, on which two precisions agree."""
    coarse, fine = (_Machine(context, point, names, whole or {}).value(node) for context in (_COARSE, _FINE))
    if isinstance(fine, Fraction) and isinstance(coarse, Fraction):
        return fine
    coarse, fine = _FINE.convert(_plain(coarse, _FINE)), _plain(fine, _FINE)
    if not _FINE.isfinite(fine) or abs(coarse - fine) > _AGREE * abs(fine):
        raise Refused("digits cancel")
    return fine


def _plain(number: Number, context: mpmath.ctx_mp.MPContext) -> Point:
    return context.mpf(number.numerator) / number.denominator if isinstance(number, Fraction) else number


def _point(number: Number) -> Point:
    number = _plain(number, _FINE)
    if isinstance(number, _FINE.mpc):
        return values.complex_number(values.real(number.real._mpf_), values.real(number.imag._mpf_))
    return values.complex_number(values.real(number._mpf_), values.real(0))


class _Machine:
    """Evaluates at one point with one precision: in fractions as long as they are short, then in floating
    point.
    """

    def __init__(
        self,
        context: mpmath.ctx_mp.MPContext,
        point: int,
        names: frozenset[str],
        whole: Mapping[str, Fraction],
    ) -> None:
        self.context = context
        self.budget = _MAX_STEPS
        self.at: dict[str, Number] = {
            name: context.j if name == "i" else _plain(coordinate(name, point), context) for name in names
        }
        self.at |= whole

    def value(self, node: Node) -> Number:
        self.budget -= 1
        if self.budget < 0:
            raise Refused("too many steps")
        match node.op:
            case "number" | "ratio":
                return node.number
            case "symbol" | "applied":
                return self.at[node.name]
            case "group":
                return self.value(node.parts[0])
            case "e":
                return +self.context.e
            case "pi":
                return +self.context.pi
            case "degree":
                return self.context.pi / 180
            case "sum" | "prod":
                return self.repeated(node)
            case "^":
                return self.power(*map(self.value, node.parts))
            case "+" | "-" | "*" | "/":
                return self.arithmetic(node.op, [self.value(part) for part in node.parts])
            case _:
                return self.function(node.op, [self.value(part) for part in node.parts])

    def repeated(self, node: Node) -> Number:
        """A sum or product over whole numbers; an endless one has its first terms only."""
        first, last, body = node.parts
        low = self.value(first)
        high = low + NUM_TERMS - 1 if last.op == "infinity" else self.value(last)
        if not (
            isinstance(low, Fraction)
            and isinstance(high, Fraction)
            and low.denominator == high.denominator == 1
            and high >= low - 1
        ):
            raise Refused("a sum without whole bounds")
        count = int(high - low) + 1
        if count > _MAX_STEPS:
            return self.long_sum(node, int(low), count)
        total, outer = Fraction(int(node.op == "prod")), self.at
        for index in range(low.numerator, high.numerator + 1):
            self.at = outer | {node.name: Fraction(index)}
            total = self.arithmetic("+" if node.op == "sum" else "*", [total, self.value(body)])
        self.at = outer
        return total

    def long_sum(self, node: Node, low: int, count: int) -> Number:
        """A sum of too many terms to add up, where they are values of a polynomial; others are refused, or
        left to the computer algebra.
        """
        outer, power = self.at, degree(node.parts[2], node.name) if node.op == "sum" else None
        if power is None or power > MAX_DEGREE:
            if node.op == "prod" or count > MAX_TERMS:
                raise TooLarge(f"{count} terms")
            raise Refused("too many steps")
        first = []
        for index in range(low, low + power + 1):
            self.at = outer | {node.name: Fraction(index)}
            first.append(self.value(node.parts[2]))
        self.at = outer
        if not all(isinstance(value, Fraction) for value in first):
            raise Refused("too many steps")
        return self.short(polynomial_sum(first, count))

    def arithmetic(self, op: str, parts: list[Number]) -> Number:
        if not all(isinstance(part, Fraction) for part in parts):
            parts = [_plain(part, self.context) for part in parts]
        if op == "-":
            return -parts[0]
        left, right = parts
        if op == "/" and not right:
            raise Refused("a division by zero")
        result = left + right if op == "+" else left * right if op == "*" else left / right
        if op == "+" and not result and not isinstance(result, Fraction):
            raise Refused("digits cancel")
        return self.short(result)

    def short(self, number: Number) -> Number:
        """A long fraction becomes a floating-point number."""
        if isinstance(number, Fraction):
            return (
                number
                if number.numerator.bit_length() + number.denominator.bit_length() <= _EXACT_BITS
                else _plain(number, self.context)
            )
        return self.bounded(number)

    def power(self, base: Number, exponent: Number) -> Number:
        if not base:
            raise Refused("a power of zero")
        whole = isinstance(exponent, Fraction) and exponent.denominator == 1
        if whole and base in (1, -1) and isinstance(base, Fraction):
            return base if exponent.numerator % 2 else base * base
        if whole and isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(exponent) * bits <= _EXACT_BITS:
                return base**exponent.numerator
        size, times = _plain(base, self.context), _plain(exponent, self.context)
        self.refuse_beyond(2 * abs(times * self.context.log(size)))
        if abs(times) > _MAX_TIMES:
            raise TooLarge("a power that magnifies the error of its base")
        return self.bounded(self.context.power(size, exponent.numerator if whole else times))

    def function(self, name: str, exact: list[Number]) -> Point:
        parts = [_plain(part, self.context) for part in exact]
        if name not in ("ln", "log", "abs") and max(map(self.context.mag, parts)) > _MAX_ARGUMENT:
            raise TooLarge(f"{name} of a number beyond 2^{_MAX_ARGUMENT}")
        if name in _GROWING:
            self.refuse_beyond(2 * abs(parts[0]))
        elif name in _TURNING:
            self.refuse_beyond(2 * abs(self.context.im(parts[0])))
        elif name in ("factorial", "binom"):
            largest = max(map(abs, parts)) + 2
            self.refuse_beyond(largest * self.context.mag(largest))
        try:
            result = (
                getattr(self.context, name)(*parts)
                if name not in _NAMED
                else _NAMED[name](self.context, parts)
            )
            if (
                name in ("ln", "log")
                and not result
                and any(isinstance(part, Fraction) and part != 1 for part in exact[:1])
            ):
                raise Refused("digits cancel")  # the logarithm of what only rounding has made 1
            return self.bounded(result)
        except (ArithmeticError, ValueError) as error:
            raise error if isinstance(error, TooLarge) else Refused(f"{name} at a pole") from error

    def refuse_beyond(self, bits: Point) -> None:
        if bits > MAX_BITS:
            raise TooLarge(f"a number of more than {MAX_BITS} bits")

    def bounded(self, number: Point) -> Point:
        """The number itself, if it is one of bounded size."""
        if not self.context.isfinite(number):
            raise Refused("no finite number")
        if number and abs(self.context.mag(number)) > MAX_BITS:
            raise TooLarge(f"a number of more than {MAX_BITS} bits")
        return number


def _log(context: mpmath.ctx_mp.MPContext, parts: list[Point]) -> Point:
    return context.log(parts[0]) / context.log(parts[1])


_GROWING = frozenset({"exp", "sinh", "cosh", "tanh"})
_TURNING = frozenset({"sin", "cos", "tan", "sec", "csc", "cot"})
_NAMED: Mapping[str, Callable[[mpmath.ctx_mp.MPContext, list[Point]], Point]] = {
    "abs": lambda context, parts: context.mpf(abs(parts[0])),
    "binom": lambda context, parts: context.binomial(*parts),
    "log": _log,
    "exp": lambda context, parts: context.exp(parts[0]),
}
