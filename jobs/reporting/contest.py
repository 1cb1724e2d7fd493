"""Policies of several runs beside each other. Those that differ in nothing but the seed are a setting; a
model beside others is a setting of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import JsonValue

from evaluation.compare import ByProblem
from evaluation.scores import Score, score
from evaluation.seeds import over_seeds
from evaluation.summary import Summary
from jobs.costs.accounting import Cost
from jobs.reporting.policies import Pair
from serl.run.rundir import Run

Problem = tuple[str, str]  # of a benchmark
NOTHING = Cost()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A run and the policy of it that counts: `means` by round and benchmark, `chosen` its round, `milestone`
    its turn where it was published within that, `solved` the problems that it solved, `overrides` what makes
    it differ from others, `replicate` what tells it from its repetitions. `scores` and `golds` are of models
    that somebody named.
    """

    name: str
    id: str = ""
    setting: str = ""
    replicate: str = ""
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

    @property
    def course(self) -> list[tuple[int, str, float]]:
        """Every mean, by round and benchmark."""
        return [(r, name, x) for r, found in sorted(self.means.items()) for name, x in found.items()]

    @property
    def hours(self) -> float:
        """Of all tasks."""
        return self.cost.used_s / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What only repeats itself; those that count are in `over`, by replicate."""

    label: str
    overrides: Mapping[str, JsonValue] = field(default_factory=dict)
    trials: tuple[Tried, ...]

    @property
    def over(self) -> dict[str, Tried]:
        return {t.replicate: t for t in self.trials if t.over}

    @property
    def solved(self) -> dict[str, ByProblem]:
        return {replicate: t.solved for replicate, t in self.over.items()}

    def seeds(self, benchmark: str) -> Score:
        """The mean over seeds, of the chosen rounds: how well it works."""
        return over_seeds([t.counts[benchmark] for t in self.over.values() if benchmark in t.counts])

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
    def ranked_by(self) -> tuple[str, ...]:
        return self.validation or self.benchmarks

    @property
    def columns(self) -> tuple[str, ...]:
        return self.benchmarks + self.validation

    def role(self, benchmark: str) -> str:
        return "validation" if benchmark in self.validation else "headline"
