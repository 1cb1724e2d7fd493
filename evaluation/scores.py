"""Numbers with error bars: pass@1, avg@k, pass@k, maj@k, and a paired test between two models.

The unit of sampling is the problem: samples of one problem are averaged first, so that standard errors are
clustered by problem. Every problem counts, whatever became of its answers; a verdict that is not "correct" is
worth 0, never a smaller denominator.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.worker import Verdict

Z_95 = 1.959963984540054
NUM_RESAMPLES = 4000
_DRAWS_AT_ONCE = 4_000_000
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

    The interval is Wilson's with the effective number of problems that the standard error implies, so that it
    is honest for few problems and near 0 and 1, where the normal interval is too short.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two models on the same `n` problems: the second's mean minus the first's, with a bootstrap interval and
    two p-values.

    `p` tests the difference of means by resampling problems, and is never below what the exact test allows:
    resampling sees too little chance in a handful of problems that differ. `p_mcnemar` is exact, and 1 where
    an answer is worth a fraction.
    """

    difference: float
    low: float
    high: float
    p: float
    p_mcnemar: float
    n: int

    @property
    def verdict(self) -> Literal["better", "worse", "not shown"]:
        """What may honestly be said of the second model."""
        if self.low <= 0.0 <= self.high or self.p >= 0.05:
            return "not shown"
        return "better" if self.difference > 0 else "worse"


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
    """The probability that at least one of k samples, drawn without replacement from n with c correct, is
    correct.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k(n={n}, c={c}, k={k}): needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def maj_at_k(labels: Sequence[int | None], correct: Mapping[int, bool]) -> float:
    """The probability that the largest class is correct, a tie being broken at random.

    `labels` are the classes of a problem's samples (None: no vote), `correct` says which classes are right.
    No votes: 0.
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


def paired(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Paired:
    """A paired bootstrap over problems of the difference between two models; a function of its arguments
    alone.

    One number per problem and model (share of correct samples, or 0 and 1), in the same order.
    """
    if len(first) != len(second):
        raise ValueError(
            f"paired: {len(first)} and {len(second)} problems; both models must have answered the same ones"
        )
    n = len(first)
    if n == 0:
        return Paired(difference=math.nan, low=math.nan, high=math.nan, p=1.0, p_mcnemar=1.0, n=0)
    gain = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    means = _resampled_means(gain, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    tail = min(np.count_nonzero(means <= 0.0), np.count_nonzero(means >= 0.0))
    whole = all(value in (0.0, 1.0) for value in (*first, *second))
    exact = mcnemar([value == 1.0 for value in first], [value == 1.0 for value in second]) if whole else 1.0
    least = exact if whole else min(1.0, 2.0 ** (1 - np.count_nonzero(gain)))  # every difference of one sign
    return Paired(
        difference=float(gain.mean()),
        low=float(low),
        high=float(high),
        p=min(1.0, max(2.0 * (tail + 1) / (NUM_RESAMPLES + 1), float(least))),
        p_mcnemar=exact,
        n=n,
    )


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """The mean of each of `NUM_RESAMPLES` resamples, drawn a few at a time to bound memory."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(values))
    means = []
    for start in range(0, NUM_RESAMPLES, at_once):
        count = min(at_once, NUM_RESAMPLES - start)
        means.append(values[generator.integers(0, len(values), size=(count, len(values)))].mean(axis=1))
    return np.concatenate(means)
