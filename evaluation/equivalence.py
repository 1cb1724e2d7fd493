"""Reading LaTeX answers with math-verify; for worker processes only, where a time and a memory limit hold.

Refuses what math-verify accepts too readily: an equation without an unknown is its value if it is true and mere text if not;
relations are the same only if one is a multiple of the other; numbers are compared relatively, never at a fixed decimal; letters
that spell a word are that word. Ordered and unordered collections differ: `(1,2)` is not `\\{1,2\\}`.
"""

import hashlib
import logging
from fractions import Fraction
from functools import lru_cache

import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from latex2sympy2_extended.logic import And
from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from evaluation import values
from evaluation.forms import MAX_ANSWER_CHARS, latex, normalise, plain
from evaluation.values import Group, Named, Opaque, Relation, Scalar, Text, Value

logging.getLogger("math_verify").setLevel(logging.CRITICAL)

NUM_POINTS = 3
MAX_ITEMS = 64
_DIGITS = 30
_READING = LatexExtractionConfig(
    try_extract_without_anchor=False,
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"),
)


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
    value = plain(key)
    if value is not None:
        return value
    parsed = parse(f"\\boxed{{{latex(key)}}}", [_READING], "no_fallback", "first_match", parsing_timeout=None)
    return _value(parsed[0], key) if parsed and not isinstance(parsed[0], str) else None


def _value(expression: object, key: str) -> Value:
    match expression:
        case sympy.MatrixBase():
            return _group("matrix {}x{}".format(*expression.shape), list(expression.flat()), key, ordered=True)
        case sympy.MatrixExpr():
            explicit = expression.doit()
            return _value(explicit, key) if isinstance(explicit, sympy.MatrixBase) else _opaque(expression)
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
        case sympy.Expr() if not expression.has(sympy.nan, sympy.zoo):
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


def _opaque(expression: object) -> Opaque:
    return Opaque(expression=expression, agree=_agree)


def _agree(gold: object, prediction: object) -> bool:
    return bool(verify(gold, prediction, timeout_seconds=None))


def _relation(expression: object, key: str) -> Value:
    """An assignment is a named value, a true equation of numbers is its value, other relations are compared as relations."""
    links = _links(expression)
    if not links or not all(isinstance(link, Relational) for link in links):
        return Text(text=key)
    first, last = links[0], links[-1]
    if all(isinstance(link, sympy.Eq) for link in links):
        if first.lhs is sympy.I or (is_expr_of_only_symbols(first.lhs) and first.lhs.free_symbols):
            return Named(name=str(first.lhs), value=_value(last.rhs, key), residual=_residual(first.lhs, last.rhs))
        if not any(link.free_symbols for link in links):
            return _value(last.rhs, key) if all(_true(link) for link in links) else Text(text=key)
    relations = [_single(link) for link in links]
    if any(relation is None for relation in relations):
        return Text(text=key)
    return relations[0] if len(relations) == 1 else Group(kind="all", items=tuple(relations), ordered=False)


def _links(expression: object) -> list[object]:
    """The relations of a chain, in the order written."""
    if not isinstance(expression, And):
        return [expression]
    return [link for argument in expression._unsorted_args for link in _links(argument)]


def _true(equation: sympy.Eq) -> bool:
    left, right = _value(equation.lhs, ""), _value(equation.rhs, "")
    return isinstance(left, Scalar) and isinstance(right, Scalar) and values.same(left, right)


def _single(relation: Relational) -> Relation | None:
    """The relation as `residual` against zero, or None where it has no unknown or no numbers."""
    kinds = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": "<", ">=": "<="}
    sides = (relation.rhs, relation.lhs) if relation.rel_op in (">", ">=") else (relation.lhs, relation.rhs)
    residual = _residual(*sides) if relation.free_symbols and relation.rel_op in kinds else None
    return Relation(kind=kinds[relation.rel_op], residual=residual) if residual else None


def _residual(left: object, right: object) -> Scalar | None:
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    return _scalar(sympy.Add(left, sympy.Mul(-1, right, evaluate=False), evaluate=False))


def _scalar(expression: sympy.Expr) -> Scalar | None:
    """The expression's numbers: exact where it is a rational, else its values at the fixed points; None where it has none."""
    if isinstance(expression, sympy.Rational):
        return Scalar(exact=Fraction(int(expression.p), int(expression.q)))
    plain_symbols = expression.replace(lambda part: isinstance(part, AppliedUndef), lambda part: sympy.Symbol(str(part)))
    symbols = sorted(plain_symbols.free_symbols, key=lambda symbol: symbol.name)
    rough = plain_symbols.has(sympy.Float)
    points = []
    unknown = any(symbol.name != "i" for symbol in symbols)
    for point in range(NUM_POINTS if unknown else 1):
        number = _number(plain_symbols, {symbol: _coordinate(symbol.name, point) for symbol in symbols})
        if number is None:
            return None
        points.append(number)
    return Scalar(points=tuple(points), rough=rough)


def _number(expression: sympy.Expr, at: dict[sympy.Symbol, sympy.Expr]) -> values.Point | None:
    """The expression's value, or None where sympy cannot evaluate it (it says so with any of these errors)."""
    try:
        number = expression.evalf(_DIGITS, subs=at) if at else expression.evalf(_DIGITS)
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
    """A fixed number for a symbol, unlike any a person writes: positive at the first points, negative at the last; i is imaginary."""
    if name == "i":
        return sympy.I
    digest = hashlib.sha256(f"{name} {point}".encode()).digest()
    size = sympy.Rational(int.from_bytes(digest[:16], "big"), 2**128) * 2 + sympy.Rational(3, 10)
    return sympy.Float(-size if point == NUM_POINTS - 1 else size, 2 * _DIGITS)
