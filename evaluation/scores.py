"""Numbers with error bars: pass@1, avg@k, pass@k, maj@k, and a paired test between two models.

The unit of sampling is the problem: samples of one problem are averaged first, so that standard errors are clustered by problem.
Every problem counts, whatever became of its answers; a verdict that is not "correct" is worth 0, never a smaller denominator.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.worker import Verdict

Z_95 = 1.959963984540054
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "unparsed", "undecided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A mean over `n` problems with its standard error and a 95 % interval."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def score(values: Sequence[float]) -> Score:
    """The mean of one number per problem, each in [0, 1].

    The interval is Wilson's with the effective number of problems that the standard error implies, so that it is honest for few
    problems and near 0 and 1, where the normal interval is too short.
    """
    n = len(values)
    if n == 0:
        return Score(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    binomial = mean * (1 - mean)
    size = n * binomial / variance if variance > 0 and binomial > 0 else float(n)
    low, high = wilson(mean, max(size, 1.0))
    return Score(value=mean, stderr=math.sqrt(variance / n), low=low, high=high, n=n)


def wilson(mean: float, size: float) -> tuple[float, float]:
    """The 95 % interval of a proportion of `size` independent trials."""
    squared = Z_95**2
    centre = (mean + squared / (2 * size)) / (1 + squared / size)
    half = Z_95 / (1 + squared / size) * math.sqrt(mean * (1 - mean) / size + squared / (4 * size**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_1(correct: Sequence[bool]) -> Score:
    """The share of problems whose single (greedy) answer is correct."""
    return score([float(right) for right in correct])


def avg_at_k(correct: Sequence[Sequence[bool]]) -> Score:
    """The mean over problems of the share of correct samples."""
    return score([sum(samples) / len(samples) for samples in correct])


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that at least one of k samples, drawn without replacement from n with c correct, is correct."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k(n={n}, c={c}, k={k}): needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def maj_at_k(labels: Sequence[int | None], correct: Mapping[int, bool]) -> float:
    """The probability that the largest class is correct, a tie being broken at random.

    `labels` are the classes of a problem's samples (None: no vote), `correct` says which classes are right. No votes: 0.
    """
    votes = Counter(label for label in labels if label is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [label for label, num in votes.items() if num == most]
    return sum(correct.get(label, False) for label in winners) / len(winners)


def count_verdicts(verdicts: Sequence[Verdict]) -> dict[Verdict, int]:
    """How many verdicts there are of each kind; they add up to the number of responses."""
    counts = Counter(verdicts)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """The exact two-sided p-value that two models answer the same problems equally well (McNemar's test)."""
    if len(a) != len(b):
        raise ValueError(f"mcnemar: {len(a)} and {len(b)} answers; the test is paired")
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = term = 1
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)
