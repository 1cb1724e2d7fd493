"""Policies and what may be said of them: what a run, several runs and a sweep report alike.

A policy is a scored round of a run. Everything is read from stored grades and paired by problem: nothing is asked
again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


from evaluation.compare import ByProblem, common
from evaluation.scores import mcnemar
from evaluation.seeds import Difference, verdict
from serl.run.rundir import Run
from serl.stages.kind import Stage
from serl.stages.show import show_of


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


def versus_base(base: ByProblem, policy: ByProblem, benchmarks: Sequence[str]) -> list[Pair]:
    """A round's policy against the base model, by the exact test alone; not adjusted for looking at several."""
    pairs = []
    for name, (before, after) in common(base, policy).items():
        if name in benchmarks:
            p = mcnemar([v == 1.0 for v in before], [v == 1.0 for v in after])
            ends = fmean(before), fmean(after)
            found = Difference(
                difference=ends[1] - ends[0],
                low=math.nan,
                high=math.nan,
                p=p,
                num_seeds=1,
                num_problems=len(after),
            )
            pairs.append(Pair(benchmark=name, first="", second="", found=found, means=ends, p=p))
    return pairs
