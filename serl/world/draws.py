"""Problems drawn until they are what is wanted, the same way by every made-up world."""

import random
from collections.abc import Callable
from typing import Protocol, TypeVar


class Asked(Protocol):
    @property
    def question(self) -> str: ...


P = TypeVar("P", bound=Asked)


def first(make: Callable[[random.Random], P], rng: random.Random, wanted: Callable[[P], bool]) -> P:
    """The first that is wanted."""
    while not wanted(problem := make(rng)):
        pass
    return problem


def distinct(
    make: Callable[[random.Random], P], rng: random.Random, count: int, wanted: Callable[[P], bool]
) -> list[P]:
    """`count` wanted ones with different questions."""
    found: dict[str, P] = {}
    while len(found) < count:
        problem = first(make, rng, wanted)
        found.setdefault(problem.question, problem)
    return list(found.values())
