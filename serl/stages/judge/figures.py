"""How good scores are where gold answers exist: pairs in the right order, and the best of n by them.

Sums over questions, so that shards and rounds add up.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import comb

from serl.records import Group, Pair


def of_pair(pair: Pair, scores: Sequence[float]) -> Counter[str]:
    """Whether the scores agree with who made the pair, and with the gold answer where that tells."""
    found: Counter[str] = Counter(pairs=1, agreed=_before(*scores))
    if pair.right is not None:
        found.update(gold_pairs=1, gold_pairs_right=_before(*scores) if pair.right else 1 - _before(*scores))
    return found


def of_group(group: Group, correct: Sequence[bool | None], scores: Sequence[float]) -> Counter[str]:
    """`correct[i]`: whether answer i equals the gold answer; what gave no answer does not.

    A group's pairs weigh 1 together, so that each question counts alike.
    """
    right = [bool(c) for c in correct]
    found: Counter[str] = Counter(
        questions=1, first_right=right[0], random_right=sum(right) / len(right), some_right=any(right),
        vote_right=bool(group.winner_correct), best_right=best_of(len(right), right, scores),
    )  # fmt: skip
    sides = [(a, b) for a, x in zip(scores, right) if x for b, y in zip(scores, right) if not y]
    if sides:
        found.update(told_apart=1, pairs_right=sum(_before(a, b) for a, b in sides) / len(sides))
    for n in (1 << k for k in range(1, len(right).bit_length())):
        found[f"best_of_{n}"] = best_of(n, right, scores)
    return found


def best_of(n: int, right: Sequence[bool], scores: Sequence[float]) -> float:
    """The chance that the best scored of n answers, drawn from all, is right; equal scores share it."""
    ranked = sorted(zip(scores, right), reverse=True)
    shares = [sum(x for _, x in tied) / len(tied) for tied in _tied(ranked) for _ in tied]
    below = range(len(ranked) - 1, -1, -1)  # answers that come after each
    return sum(share * comb(after, n - 1) for share, after in zip(shares, below)) / comb(len(ranked), n)


def _tied(ranked: Sequence[tuple[float, bool]]) -> list[list[tuple[float, bool]]]:
    return [list(same) for _, same in groupby(ranked, key=lambda one: one[0])]


def _before(a: float, b: float) -> float:
    """1 where the first score is higher, a half where they are equal."""
    return 0.5 if a == b else float(a > b)
