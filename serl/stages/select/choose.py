"""Which answers of a group are chosen: pure functions of what each is worth."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from serl.records import Group, Pair
from serl.stages.select.spec import Choice, Cross, Extremes, Gate, Right

Worth = Sequence[float | None]  # of each answer of a group; None where nobody can tell


def chosen(
    group: Group, worth: Worth, correct: Worth, choice: Choice, says: str, rng: random.Random
) -> tuple[list[Pair | Group], Counter[str]]:
    """The pairs of a group, or the group with its right answers alone; and what was left out, by reason.

    `correct` is what the gold answer says, for pairs to be audited by.
    """
    match choice:
        case Right():
            return _right(group, worth, choice, rng)
        case Cross(most=most):
            found, lost = _usable(group, _ordered(worth))
            lost["surplus"] += max(0, len(found) - most)
            sides = sorted(rng.sample(found, min(most, len(found))))
        case Extremes():
            sides, lost = _usable(group, _ends(worth))
        case Gate():
            raise AssertionError("a gate is one of all pairs: see `gate`")
        case _:
            assert_never(choice)
    return [_pair(group, i, j, correct, says) for i, j in sides], lost


def _right(
    group: Group, worth: Worth, choice: Right, rng: random.Random
) -> tuple[list[Pair | Group], Counter[str]]:
    right = [i for i, value in enumerate(worth) if value is not None and value >= choice.least]
    several = sorted(rng.sample(right, min(choice.most, len(right))))
    lost = Counter(wrong=len(worth) - len(right), surplus=len(right) - len(several))
    return ([only(group, several)] if several else []), lost


def only(group: Group, answers: Sequence[int]) -> Group:
    """The group with these of its answers; what was found of all of them stays as it was."""
    kept = {
        name: tuple(getattr(group, name)[i] for i in answers)
        for name in ("completions", "answers", "labels", "rewards")
    }
    return replace(group, **kept)


def _ordered(worth: Worth) -> list[tuple[int, int]]:
    """Every two answers of which the first is worth more."""
    known = [(i, value) for i, value in enumerate(worth) if value is not None]
    return [(i, j) for i, a in known for j, b in known if a > b]


def _ends(worth: Worth) -> list[tuple[int, int]]:
    """The first of the best and the first of the worst, where they differ."""
    known = [(value, -i) for i, value in enumerate(worth) if value is not None]
    if not known or max(known)[0] == min(known)[0]:
        return []
    low = min(value for value, _ in known)
    return [(-max(known)[1], -max(i for value, i in known if value == low))]


def _usable(group: Group, sides: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], Counter[str]]:
    """Without those that say the same, token by token, or of which one says nothing."""
    lost: Counter[str] = Counter()
    found = []
    for i, j in sides:
        a, b = group.completions[i], group.completions[j]
        if a.token_ids == b.token_ids:
            lost["equal"] += 1
        elif not (a.text.strip() and b.text.strip()):
            lost["empty"] += 1
        else:
            found.append((i, j))
    return found, lost


def _pair(group: Group, i: int, j: int, correct: Worth, says: str) -> Pair:
    a, b = correct[i], correct[j]
    return Pair(
        id=f"{group.id}-{i}-{j}", question=group.question, prompt_ids=group.prompt_ids,
        completions=(group.completions[i], group.completions[j]), says=says,
        right=None if a is None or b is None or a == b else a > b,
    )  # fmt: skip
