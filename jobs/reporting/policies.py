"""Policies and what may be said of them: what a run, several runs and a sweep report alike.

A policy is a scored round of a run, or what was published within one and scored. Policies that differ in
nothing but the seed are a setting; a model beside others is a setting of one. Everything is read from stored
grades and paired by problem and, where there are several, by seed: nothing is asked again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import TypeVar

import numpy as np
from pydantic import JsonValue

from evaluation.compare import ByProblem, by_problem
from evaluation.scores import Score, score
from evaluation.seeds import Difference, crossed, holm, over_seeds, verdict
from evaluation.summary import Summary
from jobs.costs.accounting import Cost
from jobs.reporting.render import p_value
from serl.run.rundir import Run
from serl.stages import exams

T = TypeVar("T")
Seeds = Mapping[str, ByProblem]  # by replicate, which problems its policy solved
Problem = tuple[str, str]  # of a benchmark
NOTHING = Cost()
MAX_ALL_PAIRS = 8  # with more settings, each is compared with the first alone


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
        return p_value(self.p)


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
    found = {at: means(by_problem(exams.round_grades(run, *at))) for at in places}
    return best(found, apart)


def told(round: int, milestone: int) -> str:
    """A policy in words."""
    return f"round {round}, turn {milestone}" if milestone else f"round {round}"


# ----------------------------------------------------------------------------------- settings
@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A run and the policy of it that counts: `means` by round and benchmark, `chosen` its round, `milestone`
    its turn where it was published within that, `solved` the problems that it solved, `overrides` what makes
    it differ from others. `scores` and `golds` are of models that somebody named.
    """

    name: str
    id: str = ""
    overrides: Mapping[str, JsonValue] = field(default_factory=dict)
    run: Run | None = None
    word: str = "not begun"
    reason: str = ""
    means: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    chosen: int | None = None
    milestone: int = 0
    solved: ByProblem = field(default_factory=dict)
    cost: Cost = NOTHING
    scores: Mapping[str, Summary] = field(default_factory=dict)
    golds: Mapping[Problem, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it: done, or ended early; its score then counts."""
        return self.chosen is not None and self.word in ("done", "ended early")

    @property
    def counts(self) -> Mapping[str, float]:
        """The means of the policy that counts."""
        return self.means.get(self.chosen, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What only repeats itself, by replicate; those that count are in `over`."""

    label: str
    overrides: Mapping[str, JsonValue] = field(default_factory=dict)
    trials: tuple[Tried, ...]
    over: Mapping[str, Tried]

    @property
    def solved(self) -> Seeds:
        return {replicate: t.solved for replicate, t in self.over.items()}

    @property
    def cost(self) -> Cost:
        return sum((t.cost for t in self.trials), NOTHING)

    def seeds(self, benchmark: str) -> Score:
        """The mean over seeds, of the chosen rounds: how well it works."""
        return over_seeds([t.counts[benchmark] for t in self.over.values() if benchmark in t.counts])

    def base(self, benchmark: str) -> Score:
        """That of its base models."""
        bases = [t.means.get(0, {}) for t in self.over.values()]
        return over_seeds([found[benchmark] for found in bases if benchmark in found])

    def problems(self, benchmark: str) -> Score:
        """The mean over problems, the seeds of each averaged first: how well these very policies were
        measured.
        """
        columns = [solved[benchmark] for solved in self.solved.values() if benchmark in solved]
        shared = set.intersection(*(set(c) for c in columns)) if columns else set()
        return score([fmean(column[id] for column in columns) for id in sorted(shared)])

    def told(self, benchmark: str) -> Score:
        """With the interval that can be had: over seeds, or of a single one over problems."""
        seeds = self.seeds(benchmark)
        return self.problems(benchmark) if seeds.n == 1 else seeds

    def rank(self, benchmarks: Sequence[str]) -> float:
        """The mean over benchmarks, to order settings by."""
        found = [s.value for name in benchmarks if (s := self.seeds(name)).n]
        return fmean(found) if found else float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Settings on benchmarks; those that any of the runs only chooses by are apart in `validation`.
    `replicate` is the key that tells repetitions; `unpaired` says what could not be compared, and
    `asked_differently` by key in what the models' examinations differ.
    """

    name: str
    settings: tuple[Setting, ...]
    benchmarks: tuple[str, ...]
    validation: tuple[str, ...]
    pairs: tuple[Pair, ...]
    replicate: str = "seed"
    unpaired: tuple[str, ...] = ()
    asked_differently: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def trials(self) -> list[Tried]:
        return [t for s in self.settings for t in s.trials]

    @property
    def best(self) -> Setting | None:
        """The first that counts."""
        return next((s for s in self.settings if s.over), None) if self.ranked_by else None

    @property
    def equals(self) -> list[Setting]:
        """Those that stand as high as the best, which is one of them."""
        if (best := self.best) is None:
            return []
        top = len(best.over), best.rank(self.ranked_by)
        return [s for s in self.settings if (len(s.over), s.rank(self.ranked_by)) == top]

    @property
    def ranked_by(self) -> tuple[str, ...]:
        return self.validation or self.benchmarks

    @property
    def columns(self) -> tuple[str, ...]:
        return self.benchmarks + self.validation

    def role(self, benchmark: str) -> str:
        return "validation" if benchmark in self.validation else "headline"

    def words(self, setting: Setting, benchmark: str) -> Iterator[str]:
        """What each test on a benchmark says of a setting."""
        opposite = {"better": "worse", "worse": "better"}
        for p in self.pairs:
            if p.benchmark == benchmark and setting.label in (p.first, p.second):
                yield p.word if p.second == setting.label else opposite.get(p.word, p.word)


def compared(
    settings: Mapping[str, Seeds], benchmarks: Sequence[str], unlike: Collection[tuple[str, str, str]] = ()
) -> tuple[Pair, ...]:
    """Those that are `matched`, on the seeds and problems that both have, without those (benchmark, first,
    second) that are `unlike`; Holm's adjustment over all of them.
    """
    tested = []
    for benchmark in benchmarks:
        for first, second in matched(list(settings)):
            answers = _answers(settings[first], settings[second], benchmark)
            if answers is not None and (benchmark, first, second) not in unlike:
                tested.append((benchmark, first, second, *answers))
    found = [crossed(ours, theirs) for *_, ours, theirs in tested]
    adjusted = holm([f.p for f in found])
    return tuple(
        Pair(
            benchmark=benchmark, first=first, second=second, found=f, p=p,
            means=(float(ours.mean()), float(theirs.mean())),
        )
        for (benchmark, first, second, ours, theirs), f, p in zip(tested, found, adjusted, strict=True)
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
