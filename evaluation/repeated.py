"""Sums and products over whole numbers: those whose bounds are letters, at small whole numbers, and long ones
of polynomials, in a few steps.

A letter in a bound stands for a whole number, so such a formula has no value at the irrational points where
others are compared; it is compared at whole numbers instead, together with whatever it is held against.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

from evaluation.formula import Node

NUM_STEPS = 12
"""Three times as many where several letters stand in bounds: a sum from m to n has no terms where m is beyond
n.
"""
MAX_DEGREE = 12


def symbols(node: Node) -> frozenset[str]:
    """The names in a formula; a name applied to another is one name."""
    if node.op in ("symbol", "applied"):
        return frozenset({node.name})
    if node.op in ("sum", "prod"):
        low, high, body = map(symbols, node.parts)
        return low | high | (body - {node.name})
    return frozenset().union(*map(symbols, node.parts))


def counted(node: Node) -> frozenset[str]:
    """The free names in the bounds of sums and products."""
    if node.op in ("sum", "prod"):
        low, high, body = node.parts
        return symbols(low) | symbols(high) | counted(low) | counted(high) | (counted(body) - {node.name})
    return frozenset().union(*map(counted, node.parts)) if node.parts else frozenset()


def steps(names: frozenset[str]) -> Iterator[dict[str, Fraction]]:
    """Small whole numbers for the names, fixed by them: 1, 2, 3 .. for a single one, mixed for several."""
    for step in range(NUM_STEPS if len(names) == 1 else 3 * NUM_STEPS):
        yield {name: Fraction(step + 1 if len(names) == 1 else _mixed(name, step)) for name in names}


def _mixed(name: str, step: int) -> int:
    return 1 + hashlib.sha256(f"{name} step {step}".encode()).digest()[0] % 9


def degree(node: Node, name: str) -> int | None:
    """The degree of a formula that is written as a polynomial in a name; None where it is not."""
    parts = [degree(part, name) for part in node.parts]
    match node.op:
        case "number" | "ratio" | "e" | "pi":
            return 0
        case "symbol":
            return int(node.name == name)
        case "group" | "-":
            return parts[0]
        case "+" | "*":
            return None if None in parts else max(parts) if node.op == "+" else sum(parts)
        case "/" if parts[1] == 0:
            return parts[0]
        case "^" if (
            node.parts[1].op == "number"
            and node.parts[1].number.denominator == 1
            and 0 < node.parts[1].number <= MAX_DEGREE
        ):
            return None if parts[0] is None else parts[0] * int(node.parts[1].number)
        case _:
            return None


def polynomial_sum(first: list[Fraction], count: int) -> Fraction:
    """The sum of `count` values of a polynomial, of which the first `degree + 1` are given: Newton's forward
    differences.
    """
    total, differences = Fraction(0), first
    for order in range(len(first)):
        total += math.comb(count, order + 1) * differences[0]
        differences = [b - a for a, b in itertools.pairwise(differences)]
    return total
