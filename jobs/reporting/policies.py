"""What may be said of policies: their scores, the best of them, and which differences are shown.

A policy is a scored round of a run, or what was published within one and scored. Everything is read from
stored grades and paired by problem and, where there are several, by seed: nothing is asked again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TypeVar

import numpy as np

from evaluation.compare import ByProblem, by_problem
from evaluation.scores import Score
from evaluation.seeds import Difference, crossed, holm, verdict
from evaluation.summary import Summary
from serl.run.rundir import Run
from serl.stages import exams

T = TypeVar("T")
Seeds = Mapping[str, ByProblem]  # by replicate, which problems its policy solved
MAX_ALL_PAIRS = 8  # with more settings, each is compared with the first alone


def means(solved: ByProblem) -> dict[str, float]:
    """The share of problems solved, by benchmark."""
    return {name: fmean(shares.values()) for name, shares in solved.items()}


def first_metric(found: Summary) -> str:
    """Greedy pass@1 where it was measured, or the first metric that was."""
    return next(iter(found.metrics))


def main_score(found: Summary) -> Score:
    return found.metrics[first_metric(found)]


def silent(found: Summary) -> float | None:
    """The share of greedy responses that gave no answer."""
    greedy = found.counts["greedy"]
    asked = sum(greedy.values())
    return greedy["unparsed"] / asked if asked else None


def best(means: Mapping[T, Mapping[str, float]], chosen_by: Sequence[str]) -> T | None:
    """The best policy on validation of those that are given in the order in which they came, the earliest of
    equals; None where none was scored on that.
    """
    validated = {
        policy: fmean(found[name] for name in chosen_by if name in found)
        for policy, found in means.items()
        if set(chosen_by) & set(found)
    }
    return max(validated, key=lambda policy: validated[policy], default=None)


def best_of(run: Run) -> tuple[int, int] | None:
    """The round of a run's best policy on validation, and its turn where it was published within that."""
    _, apart = exams.asked(run.config)
    places = exams.scored(run) if apart else []
    return best({at: means(by_problem(exams.round_grades(run, *at))) for at in places}, apart)


def told(round: int, milestone: int) -> str:
    """A policy in words."""
    return f"round {round}, turn {milestone}" if milestone else f"round {round}"


# ----------------------------------------------------------------------------------- tests
@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The second against the first on one benchmark; `p` is adjusted for all comparisons that were made with
    it.
    """

    benchmark: str
    first: str
    second: str
    found: Difference
    means: tuple[float, float]
    p: float

    @property
    def word(self) -> str:
        return verdict(self.found.difference, self.p)

    @property
    def told(self) -> str:
        """The verdict as a sentence says it."""
        return {"not shown": "not shown better"}.get(self.word, self.word)

    @property
    def test(self) -> str:
        return "p < 0.0001" if self.p < 1e-4 else f"p = {self.p:.2g}"


def compared(
    settings: Mapping[str, Seeds], benchmarks: Sequence[str], unlike: Collection[tuple[str, str, str]] = ()
) -> tuple[Pair, ...]:
    """Those that are `matched`, on the seeds and problems that both have, without those (benchmark, first,
    second) that are `unlike`; Holm's adjustment over all of them.
    """
    tested = [
        (benchmark, first, second, answers)
        for benchmark in benchmarks
        for first, second in matched(list(settings))
        if (benchmark, first, second) not in unlike
        and (answers := _answers(settings[first], settings[second], benchmark))
    ]
    found = [crossed(*answers) for *_, answers in tested]
    adjusted = holm([f.p for f in found])
    return tuple(
        Pair(
            benchmark=benchmark, first=first, second=second, found=f, p=p,
            means=(float(ours.mean()), float(theirs.mean())),
        )
        for (benchmark, first, second, (ours, theirs)), f, p in zip(tested, found, adjusted, strict=True)
    )  # fmt: skip


def matched(labels: Sequence[T]) -> list[tuple[T, T]]:
    """Which are compared: every two, or of many each with the first."""
    if len(labels) <= MAX_ALL_PAIRS:
        return list(combinations(labels, 2))
    return [(labels[0], other) for other in labels[1:]]


def _answers(first: Seeds, second: Seeds, benchmark: str) -> tuple[np.ndarray, np.ndarray] | None:
    """What both solved, by common seed and common problem."""
    seeds = [s for s in first if s in second]
    columns = [solved[s].get(benchmark, {}) for solved in (first, second) for s in seeds]
    shared = sorted(set.intersection(*(set(c) for c in columns))) if columns else []
    if not shared:
        return None
    answers = np.array([[column[id] for id in shared] for column in columns])
    return answers[: len(seeds)], answers[len(seeds) :]
