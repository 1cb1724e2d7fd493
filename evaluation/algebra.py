"""From one LaTeX expression to its value, with math-verify's parser; for worker processes only, where a time
and a memory limit hold.

Refuses what math-verify accepts too readily: an equation without an unknown is its value if it is true and
mere text if not; relations are the same only if one is a multiple of the other; numbers are compared
relatively, never at a fixed decimal.
"""

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
from latex2sympy2_extended.logic import And
from math_verify import verify
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from evaluation import equations, points, values
from evaluation.points import NUM_POINTS
from evaluation.values import EMPTY, Group, Opaque, Scalar, Text, Value

logging.getLogger("math_verify").setLevel(logging.CRITICAL)

NUM_TERMS = 12
"""A power series is remembered by its first terms."""
MAX_ITEMS = 64
_DIGITS = 30
_MAX_DIGITS = 250
"""How far the evaluation may go to tell a small number from zero."""
_MAX_WORDS, _MAX_WORD = 12, 40
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_INFINITY = re.compile(r" *[+-]? *\\infty *")
_NORMAL = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
)
_SIGNS: dict[str, equations.Sign] = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_CASED = ConversionConfig(lowercase_symbols=False)


def read(latex: str, key: str) -> Value | None:
    """What a single expression or relation means, or None where the parser cannot read it (it says so with
    bare Exceptions).
    """
    if _hopeless(latex):
        return None
    try:
        parsed = latex2sympy(latex, normalization_config=_NORMAL, conversion_config=_CASED)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001  (what the parser raises for any syntax error: an answer it cannot read)
        return None
    if parsed is None or isinstance(parsed, str):
        return None
    if parsed in (sympy.oo, -sympy.oo) and not _INFINITY.fullmatch(latex):
        return Text(text=key)  # calculating with infinity gives no number
    if isinstance(parsed, sympy.Basic) and _unbounded(parsed):
        return Opaque(expression=parsed, agree=_identical)
    series = _first_terms(parsed)
    return (
        _value(parsed, key)
        if series is None
        else Group(kind="series", items=(_value(series, key),), ordered=True)
    )


def _hopeless(latex: str) -> bool:
    """Text over which the parser would brood for seconds, and fail: prose, endless words, and brackets that
    do not close.
    """
    words = _WORD.findall(latex)
    brackets = latex.count("{") - latex.count("}"), sum(map(latex.count, "([")) - sum(map(latex.count, ")]"))
    return len(words) > _MAX_WORDS or any(len(word) > _MAX_WORD for word in words) or any(brackets)


def _value(expression: object, key: str) -> Value:
    match expression:
        case sympy.MatrixBase():
            return _group(
                "matrix {}x{}".format(*expression.shape), list(expression.flat()), key, ordered=True
            )
        case sympy.MatrixExpr():
            explicit = expression.doit()
            return _value(explicit, key) if isinstance(explicit, sympy.MatrixBase) else _opaque(expression)
        case sympy.Set() if expression is sympy.S.EmptySet:
            return EMPTY
        case sympy.FiniteSet() if len(expression.args) == 1:
            return _value(expression.args[0], key)
        case sympy.FiniteSet():
            return _group("set", expression.args, key, ordered=False)
        case sympy.Tuple():
            return _group("tuple", expression.args, key, ordered=True)
        case sympy.Interval():
            return _group(_brackets(expression), (expression.start, expression.end), key, ordered=True)
        case sympy.Union():
            return _group("union", expression.args, key, ordered=False)
        case Relational() | And():
            return _relation(expression, key)
        case sympy.Expr() if not expression.has(sympy.nan, sympy.zoo) and not _infinite(expression):
            return _scalar(expression) or _opaque(expression)
        case sympy.Set():
            return _opaque(expression)
        case _:
            return Text(text=key)


def _brackets(interval: sympy.Interval) -> str:
    """An open interval and an ordered pair are written alike, so they are the same kind."""
    kinds = {(True, True): "tuple", (True, False): "(]", (False, True): "[)", (False, False): "[]"}
    return kinds[bool(interval.left_open), bool(interval.right_open)]


def _group(kind: str, items: object, key: str, *, ordered: bool) -> Value:
    if len(items) > MAX_ITEMS:
        return Text(text=key)
    return Group(kind=kind, items=tuple(_value(item, str(item)) for item in items), ordered=ordered)


def _first_terms(expression: sympy.Basic) -> sympy.Basic | None:
    """An expression with infinite sums of functions, with their first terms in place of each; None where
    there is no such sum.
    """
    if not isinstance(expression, sympy.Basic):
        return None
    endless = [
        part
        for part in expression.atoms(sympy.Sum, sympy.Product)
        if part.free_symbols and part.limits[0][-1] is sympy.oo
    ]
    endless = [part for part in endless if len(part.limits) == 1 and part.limits[0][1].is_Integer]
    if not endless:
        return None
    terms = {}
    for part in endless:
        index, low, _ = part.limits[0]
        written = [part.function.subs(index, low + step) for step in range(NUM_TERMS)]
        terms[part] = sympy.Add(*written) if isinstance(part, sympy.Sum) else sympy.Mul(*written)
    return expression.subs(terms)


def _unbounded(expression: sympy.Basic) -> bool:
    """Whether there is a sum or product with letters for bounds, over which the computer algebra broods;
    raises at one of too many terms.
    """
    for part in expression.atoms(sympy.Sum, sympy.Product):
        for _, *bounds in part.limits:
            if any(bound.free_symbols for bound in bounds):
                return True
            if (
                len(bounds) == 2
                and all(bound.is_Integer for bound in bounds)
                and bounds[1] - bounds[0] > points.MAX_TERMS
            ):
                raise points.TooLarge(f"{bounds[1] - bounds[0]} terms")
    return False


def _infinite(expression: sympy.Expr) -> bool:
    """Whether infinity is calculated with, which gives no number: it may stand alone, or as a bound."""
    if expression in (sympy.oo, -sympy.oo) or not expression.has(sympy.oo):
        return False
    bounded = sympy.Sum | sympy.Product | sympy.Integral | sympy.Limit
    return expression.replace(lambda part: isinstance(part, bounded), lambda _: sympy.Integer(1)).has(
        sympy.oo
    )


def _identical(left: object, right: object) -> bool:
    if left == right:
        return True
    raise NotImplementedError("a sum or product with letters for bounds that is outside the small grammar")


def _opaque(expression: object) -> Opaque:
    return Opaque(expression=expression, agree=_agree)


def _agree(gold: object, prediction: object) -> bool:
    return bool(verify(gold, prediction, timeout_seconds=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    """A side of a relation as the computer algebra has it."""

    expression: sympy.Basic

    @property
    def name(self) -> str:
        return str(self.expression)

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(symbol.name for symbol in self.expression.free_symbols)

    @property
    def bare(self) -> bool:
        return self.expression is sympy.I or is_expr_of_only_symbols(self.expression)

    def value(self) -> Value:
        return _value(self.expression, "")

    def minus(self, other: Self) -> Scalar | None:
        return _residual(self.expression, other.expression)


def _relation(expression: object, key: str) -> Value:
    links = _links(expression)
    if not links or not all(isinstance(link, Relational) and link.rel_op in _SIGNS for link in links):
        return Text(text=key)
    sides = [links[0].lhs, *(link.rhs for link in links)]
    return equations.meaning(
        [_Parsed(expression=side) for side in sides], [_SIGNS[link.rel_op] for link in links], key
    )


def _links(expression: object) -> list[object]:
    """The relations of a chain, in the order written."""
    if not isinstance(expression, And):
        return [expression]
    return [link for argument in expression._unsorted_args for link in _links(argument)]


def _residual(left: object, right: object) -> Scalar | None:
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    return _scalar(sympy.Add(left, sympy.Mul(-1, right, evaluate=False), evaluate=False))


def _scalar(expression: sympy.Expr) -> Scalar | None:
    """The expression's numbers: exact where it is a rational, else its values at the fixed points; None where
    it has none.
    """
    if isinstance(expression, sympy.Rational):
        return Scalar(exact=Fraction(int(expression.p), int(expression.q)))
    plain_symbols = expression.replace(
        lambda part: isinstance(part, AppliedUndef | sympy.Derivative), lambda part: sympy.Symbol(str(part))
    )
    symbols = sorted(plain_symbols.free_symbols, key=lambda symbol: symbol.name)
    rough = plain_symbols.has(sympy.Float)
    far = 1000 if plain_symbols.has(sympy.floor, sympy.ceiling) else 1  # near zero all steps are 0 or 1
    found = []
    unknown = any(symbol.name != "i" for symbol in symbols)
    for point in range(NUM_POINTS if unknown else 1):
        number = _number(plain_symbols, {symbol: _coordinate(symbol.name, point) * far for symbol in symbols})
        if number is None:
            return None
        found.append(number)
    return Scalar(points=tuple(found), rough=rough)


def _number(expression: sympy.Expr, at: dict[sympy.Symbol, sympy.Expr]) -> values.Point | None:
    """The expression's value, or None where sympy cannot evaluate it (it says so with any of these
    errors).
    """
    try:
        number = expression.evalf(_DIGITS, subs=at or None, maxn=_MAX_DIGITS)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    if number in (sympy.oo, -sympy.oo):
        return values.real("inf" if number is sympy.oo else "-inf")
    real, imaginary = number.as_real_imag()
    if not all(part.is_Float or part.is_Integer or part.is_Rational for part in (real, imaginary)):
        return None
    return values.complex_number(_part(real), _part(imaginary))


def _part(number: sympy.Expr) -> values.Point:
    """One part of a number; what the evaluation could not tell from zero is zero."""
    unknown = number.is_Float and number._prec <= 1
    return values.real(0) if unknown else values.real(sympy.Float(number, _DIGITS)._mpf_)


def _coordinate(name: str, point: int) -> sympy.Expr:
    """The number that stands for a symbol; i is imaginary."""
    if name == "i":
        return sympy.I
    number = points.coordinate(name, point)
    return sympy.Float(sympy.Rational(number.numerator, number.denominator), 2 * _DIGITS)
