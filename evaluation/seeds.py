"""What several training runs of one recipe say together: t intervals over seeds, a paired test over seeds and
problems, Holm's correction.

The interval of a run says how well its policy was measured. How well its recipe works is known only from runs
that differ in nothing but the seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from evaluation.scores import Score, paired

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The second recipe's mean minus the first's, on common seeds and problems, with a 95 % interval and a
    two-sided p-value.
    """

    difference: float
    low: float
    high: float
    p: float
    num_seeds: int
    num_problems: int


def over_seeds(values: Sequence[float]) -> Score:
    """The mean of one score per seed with Student's interval, cut to [0, 1]; `n` is the number of seeds, and
    one seed has no interval.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return Score(value=mean, stderr=math.nan, low=math.nan, high=math.nan, n=n)
    stderr = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = student_quantile(n - 1) * stderr
    return Score(value=mean, stderr=stderr, low=max(0.0, mean - half), high=min(1.0, mean + half), n=n)


def crossed(first_SP: np.ndarray, second_SP: np.ndarray) -> Difference:
    """Two recipes on S common seeds and the same P problems, seeds and problems both being samples of more.

    The paired differences are a two-way table without replication. Its mean has variance (MS_seed + max(0,
    MS_problem - MS_rest)) / SP, and Hillis' degrees of freedom, as in studies of many readers and many cases;
    MS_seed, which lies below MS_rest only by chance, is taken as at least that, or two or three seeds that
    happen to agree would pass for certainty. One seed is compared over problems alone: the exact McNemar
    test, or the bootstrap where answers are worth fractions.
    """
    num_seeds, num_problems = first_SP.shape
    if first_SP.shape != second_SP.shape:
        raise ValueError(
            f"crossed: {first_SP.shape} and {second_SP.shape} (seeds, problems); both recipes need the "
            "same ones"
        )
    if num_seeds == 1 or num_problems < 2:
        return _over_problems(first_SP.mean(axis=0), second_SP.mean(axis=0), num_seeds)
    gain_SP = second_SP.astype(np.float64) - first_SP
    mean = float(gain_SP.mean())
    seed_S, problem_P = gain_SP.mean(axis=1), gain_SP.mean(axis=0)
    rest_SP = gain_SP - seed_S[:, None] - problem_P[None, :] + mean
    of_rest = float((rest_SP**2).sum()) / ((num_seeds - 1) * (num_problems - 1))
    of_seeds = max(of_rest, num_problems * float(seed_S.var(ddof=1)))
    of_problems = num_seeds * float(problem_P.var(ddof=1))
    total = of_seeds + max(0.0, of_problems - of_rest)
    if total < 1e-12:  # every seed and problem alike: nothing to infer a spread from
        return _over_problems(first_SP.mean(axis=0), second_SP.mean(axis=0), num_seeds)
    stderr = math.sqrt(total / gain_SP.size)
    freedom = min(1e6, total**2 / (of_seeds**2 / (num_seeds - 1))) if of_seeds > 0 else 1e6
    half = student_quantile(freedom) * stderr
    return Difference(
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=student_p(mean / stderr, freedom),
        num_seeds=num_seeds,
        num_problems=num_problems,
    )


def _over_problems(first_P: np.ndarray, second_P: np.ndarray, num_seeds: int) -> Difference:
    found = paired(first_P.tolist(), second_P.tolist())
    whole = bool(np.isin(first_P, (0.0, 1.0)).all() and np.isin(second_P, (0.0, 1.0)).all())
    return Difference(
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p_mcnemar if whole else found.p,
        num_seeds=num_seeds,
        num_problems=found.n,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: to call all those below 0.05 shown is wrong, even once, in at most 5 % of
    cases.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def verdict(difference: float, p_adjusted: float) -> Literal["better", "worse", "not shown"]:
    """What may be said of the second of two, given the adjusted p-value."""
    if p_adjusted >= ALPHA or difference == 0.0:
        return "not shown"
    return "better" if difference > 0 else "worse"


def student_p(t: float, freedom: float) -> float:
    """The two-sided tail of Student's distribution."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


@cache
def student_quantile(freedom: float, tail: float = 0.05) -> float:
    """The t whose two-sided tail is `tail`, by bisection."""
    low, high = 0.0, 2.0
    while student_p(high, freedom) > tail:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction where that converges fast."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = (
        math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
        / a
    )
    fraction, c, d = 1.0, 1.0, 0.0
    for i in range(1, 400):
        m = i // 2
        if i == 1:
            step = 1.0
        elif i % 2 == 1:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            k = m - 1
            step = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        d = 1.0 / (1.0 + step * d or 1e-300)
        c = 1.0 + step / c or 1e-300
        fraction *= c * d
        if i > 1 and abs(c * d - 1.0) < 1e-15:
            break
    return front * (fraction - 1.0)
