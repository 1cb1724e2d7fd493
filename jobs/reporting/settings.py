"""Settings beside each other: what several runs and a sweep report alike.

A setting is policies that differ in nothing but the seed; a model beside others is a setting of one. What differs is
shown by tests that are paired by problem and, where there are several, by seed.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import TypeVar

import numpy as np
from pydantic import JsonValue

from evaluation.compare import ByProblem
from evaluation.scores import Score, score
from evaluation.seeds import crossed, holm, over_seeds
from jobs.costs.accounting import Cost
from jobs.reporting.policies import Pair
from serl.run.rundir import Run

T = TypeVar("T")
Seeds = Mapping[str, ByProblem]  # by replicate, which problems its policy solved


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A run and the policy of it that counts: `means` by round and benchmark, `chosen` its round, `solved` the problems
    that its policy solved, `overrides` what makes it differ from others.
    """

    name: str
    id: str = ""
    overrides: Mapping[str, JsonValue] = field(default_factory=dict)
    run: Run | None = None
    word: str = "not begun"
    reason: str = ""
    means: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    chosen: int | None = None
    solved: ByProblem = field(default_factory=dict)
    cost: Cost = Cost()

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it: done, or ended early; its score then counts."""
        return self.chosen is not None and self.word in ("done", "ended early")


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
        return sum((t.cost for t in self.trials), Cost())

    def seeds(self, benchmark: str) -> Score:
        """The mean over seeds, of the chosen rounds: how well it works."""
        found = [t.means.get(t.chosen, {}).get(benchmark) for t in self.over.values()]
        return over_seeds([value for value in found if value is not None])

    def base(self, benchmark: str) -> Score:
        """That of its base models."""
        found = [t.means.get(0, {}).get(benchmark) for t in self.over.values()]
        return over_seeds([value for value in found if value is not None])

    def problems(self, benchmark: str) -> Score:
        """The mean over problems, the seeds of each averaged first: how well these very policies were measured."""
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
    """Settings on benchmarks; those that any of the runs only chooses by are apart in `validation`. `replicate` is the
    key that tells repetitions.
    """

    settings: tuple[Setting, ...]
    benchmarks: tuple[str, ...]
    validation: tuple[str, ...]
    pairs: tuple[Pair, ...]
    replicate: str = "seed"

    @property
    def trials(self) -> list[Tried]:
        return [t for s in self.settings for t in s.trials]

    @property
    def ranked_by(self) -> tuple[str, ...]:
        return self.validation or self.benchmarks

    @property
    def columns(self) -> tuple[str, ...]:
        return self.benchmarks + self.validation

    @property
    def axes(self) -> dict[str, list[JsonValue]]:
        """The keys that settings differ in, with each setting's value in the settings' order; None where a trial leaves
        the base's.
        """
        keys = dict.fromkeys(key for s in self.settings for key in s.overrides)
        columns = {key: [s.overrides.get(key) for s in self.settings] for key in keys}
        texts = {key: {json.dumps(v, sort_keys=True) for v in values} for key, values in columns.items()}
        return {key: values for key, values in columns.items() if len(texts[key]) > 1}

    def role(self, benchmark: str) -> str:
        return "validation" if benchmark in self.validation else "headline"


def compared(
    settings: Mapping[str, Seeds],
    benchmarks: Sequence[str],
    most: int,
    unlike: Collection[tuple[str, str, str]] = (),
) -> list[Pair]:
    """Every two settings, or where there are more than `most` each with the first, on the seeds and problems that both
    have, without those (benchmark, first, second) that are `unlike`; Holm's adjustment over all of them.
    """
    tested = []
    for benchmark in benchmarks:
        for first, second in matched(list(settings), most):
            answers = _answers(settings[first], settings[second], benchmark)
            if answers is not None and (benchmark, first, second) not in unlike:
                tested.append((benchmark, first, second, *answers))
    found = [crossed(ours, theirs) for *_, ours, theirs in tested]
    adjusted = holm([f.p for f in found])
    return [
        Pair(
            benchmark=benchmark, first=first, second=second, found=f, p=p,
            means=(float(ours.mean()), float(theirs.mean())),
        )
        for (benchmark, first, second, ours, theirs), f, p in zip(tested, found, adjusted, strict=True)
    ]  # fmt: skip


def matched(labels: Sequence[T], most: int) -> list[tuple[T, T]]:
    """Which are compared: every two, or of more than `most` each with the first."""
    if len(labels) <= most:
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
