"""Policies and what may be said of them: what a run, several runs and a sweep report alike.

A policy is a scored round of a run. Everything is read from stored grades and paired by problem: nothing is asked
again. Policies that differ in nothing but the seed are one setting; a model beside others is a setting of one seed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TypeVar

import numpy as np

from evaluation.compare import ByProblem, common
from evaluation.scores import Score, mcnemar, score
from evaluation.seeds import Difference, crossed, holm, over_seeds, verdict
from jobs.reporting.render import Table, p_value, table
from serl.run.rundir import Run
from serl.stages.kind import Stage
from serl.stages.show import show_of

T = TypeVar("T")
Seeds = Mapping[str, ByProblem]  # by replicate, which problems its policy solved


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The second against the first on one benchmark; `p` is adjusted for all comparisons that were made with it."""

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


def scored_rounds(run: Run) -> list[int]:
    """The rounds whose scores are complete."""
    scoring = [s for s in run.config.stages if s.kind.gives == "grades"]
    return [s.round for s in scoring if all(run.done(shard) for shard in run.shards(s.round, s.name))]


def scoring(run: Run, round: int) -> Stage:
    """The stage that examines the policy of a round that is scored."""
    stage = run.config.giving(round, "grades")
    assert stage is not None, f"round {round} is scored, so it has a stage that does that"
    return stage


def asked(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The benchmarks that a run reports, and those that it only chooses by."""
    scoring = [(show_of(s.kind), s.section) for s in run.config.stages if s.kind.gives == "grades"]
    apart = dict.fromkeys(name for show, section in scoring for name in show.validation(section))
    named = dict.fromkeys(name for show, section in scoring for name in show.benchmarks(section))
    return tuple(name for name in named if name not in apart), tuple(apart)


def means(solved: ByProblem) -> dict[str, float]:
    """The share of problems solved, by benchmark."""
    return {name: fmean(shares.values()) for name, shares in solved.items()}


def best_round(by_round: Mapping[int, Mapping[str, float]], chosen_by: Sequence[str]) -> int | None:
    """The best round on validation, the earliest of equals; None where none was scored on that."""
    validated = {
        round: fmean(found[name] for name in chosen_by if name in found)
        for round, found in by_round.items()
        if set(chosen_by) & set(found)
    }
    return max(validated, key=lambda round: (validated[round], -round), default=None)


def seeds_score(seeds: Seeds, benchmark: str) -> Score:
    """The mean over seeds: how well a setting works."""
    return over_seeds([fmean(s[benchmark].values()) for s in seeds.values() if benchmark in s])


def problems_score(seeds: Seeds, benchmark: str) -> Score:
    """The mean over problems, the seeds of each averaged first: how well these very policies were measured."""
    columns = [solved[benchmark] for solved in seeds.values() if benchmark in solved]
    shared = set.intersection(*(set(c) for c in columns)) if columns else set()
    return score([fmean(column[id] for column in columns) for id in sorted(shared)])


# ------------------------------------------------------------------------------------------------ comparisons
def versus_base(base: ByProblem, policy: ByProblem, benchmarks: Sequence[str]) -> list[Pair]:
    """A round's policy against the base model, by the exact test alone; not adjusted for looking at several."""
    pairs = []
    for name, (before, after) in common(base, policy).items():
        if name in benchmarks:
            p = mcnemar([v == 1.0 for v in before], [v == 1.0 for v in after])
            ends = fmean(before), fmean(after)
            found = Difference(
                difference=ends[1] - ends[0],
                low=np.nan,
                high=np.nan,
                p=p,
                num_seeds=1,
                num_problems=len(after),
            )
            pairs.append(Pair(benchmark=name, first="", second="", found=found, means=ends, p=p))
    return pairs


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


def pair_table(pairs: Sequence[Pair]) -> Table:
    """Tests for a reader."""
    header = "benchmark | setting | against | verdict | difference | seeds, problems | p | p (Holm)"
    return table(
        header,
        (
            (p.benchmark, p.second, p.first, p.word, f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]",
             f"{d.num_seeds}, {d.num_problems}", bare_p(d.p), bare_p(p.p))
            for p in pairs for d in (p.found,)
        ),
    )  # fmt: skip


def pair_rows(pairs: Sequence[Pair]) -> Table:
    """The same for programs."""
    return table(
        "benchmark | first | second | difference | low | high | seeds | problems | p | p_holm | verdict",
        (
            (p.benchmark, p.first, p.second, d.difference, d.low, d.high, d.num_seeds, d.num_problems, d.p, p.p,
             p.word)
            for p in pairs for d in (p.found,)
        ),
    )  # fmt: skip


def bare_p(p: float) -> str:
    """For a column that says in its head that it holds p-values."""
    return p_value(p).removeprefix("p = ").removeprefix("p ")
