"""Several models in one report: the same benchmarks side by side, with intervals, and what may be said of each difference.

A model is a scored round of a run. Everything is paired by problem and read from stored grades: nothing is asked again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from evaluation.compare import ByProblem, by_problem, common
from evaluation.scores import Paired, Score, paired
from evaluation.seeds import holm, verdict
from evaluation.summary import Summary, summarise
from jobs.runs.find import find_run
from serl.config.schema import Section as ScoreSection
from serl.run.rundir import Run, RunError
from serl.stages.read import round_grades

MAX_ALL_PAIRS = 6  # with more models, each is compared with the first alone
MAX_NAME = 80
ASKING = (
    "protocol",
    "max_tokens",
    "max_problems",
    "choice_shots",
    "choice_format",
    "samples",
    "temperature",
    "top_p",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One policy with its scores; `solved` holds its greedy answers where there are any."""

    name: str
    run: Run
    round: int
    section: ScoreSection
    scores: Mapping[str, Summary]
    solved: ByProblem
    golds: Mapping[tuple[str, str], str]

    def main(self, benchmark: str) -> Score | None:
        """Greedy pass@1 where it was measured, or the first metric that was."""
        return next(iter(self.scores[benchmark].metrics.values())) if benchmark in self.scores else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on one benchmark, the second against the first; `p` is McNemar's where answers are right or wrong, else the bootstrap's."""

    benchmark: str
    first: str
    second: str
    paired: Paired
    p: float
    p_holm: float

    @property
    def word(self) -> str:
        return verdict(self.paired.difference, self.p_holm)


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Models on benchmarks; those that any of the runs only chooses by are apart in `validation`."""

    models: tuple[Model, ...]
    benchmarks: tuple[str, ...]
    validation: tuple[str, ...]
    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]
    asked_differently: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """What its folder is called: the same models in the same order have the same one."""
        whole = "+".join(f"{m.run.root.name}-{m.round}" for m in self.models)
        return (
            whole
            if len(whole) <= MAX_NAME
            else f"{whole[: MAX_NAME - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        )


def side_by_side(names: Sequence[str], data: Path) -> SideBySide:
    """Models named RUN (its last scored round), RUN:ROUND, or RUN:best (on validation); the first is what the others are compared with."""
    models = [_model(name, data) for name in names]
    if len({(m.run.root, m.round) for m in models}) < len(models):
        raise ValueError(
            f"{' '.join(names)}: a round of a run is named twice; name each once, as RUN:ROUND where it is not the last scored one"
        )
    found = list(dict.fromkeys(name for m in models for name in m.scores))
    to_choose_by = {name for m in models for name in m.section.validation}
    benchmarks = tuple(name for name in found if name not in to_choose_by)
    pairs, unpaired = _pairs(models, benchmarks)
    return SideBySide(
        models=tuple(models), benchmarks=benchmarks, validation=tuple(name for name in found if name in to_choose_by),
        pairs=tuple(pairs), unpaired=tuple(unpaired), asked_differently=_differences(models),
    )  # fmt: skip


def scored_rounds(run: Run) -> list[int]:
    """The rounds whose scores are complete."""
    scoring = [s for s in run.config.stages if s.kind.gives == "grades"]
    return [s.round for s in scoring if all(run.done(shard) for shard in run.shards(s.round, s.name))]


def _model(name: str, data: Path) -> Model:
    run_name, colon, wanted = name.rpartition(":")
    run = find_run(run_name if colon else name, data)
    rounds = scored_rounds(run)
    if not rounds:
        raise RunError(
            f"{run.root}: no round of this run is scored yet; `python -m jobs.status {run.root.name}` says how far it is"
        )
    if not colon:
        round = rounds[-1]
    elif wanted == "best":
        round = _best(run, rounds, _scoring(run, rounds[0]))
    elif wanted.isdigit() and int(wanted) in rounds:
        round = int(wanted)
    else:
        raise RunError(
            f"{name}: no scored round {wanted!r}; there are {', '.join(map(str, rounds))}, and `best` where a validation set was scored"
        )
    grades = round_grades(run, round)
    section = _scoring(run, round)
    return Model(
        name=f"{run.root.name}, round {round}" if run.config.rounds else run.root.name, run=run, round=round, section=section,
        scores=summarise(grades), solved=by_problem(grades), golds={(g.benchmark, g.id): g.gold for g in grades},
    )  # fmt: skip


def _scoring(run: Run, round: int) -> ScoreSection:
    """How the models of a round were asked."""
    stage = run.config.giving(round, "grades")
    assert stage is not None, f"round {round} is scored, so it has a stage that does that"
    return stage.section


def _best(run: Run, rounds: Sequence[int], section: ScoreSection) -> int:
    if not section.validation:
        raise RunError(
            f"{run.root}: it has no validation set (score.validation) to choose the best round by; name a round, as {run.root.name}:{rounds[-1]}"
        )
    means = {}
    for round in rounds:
        solved = by_problem(round_grades(run, round))
        means[round] = fmean(fmean(solved[name].values()) for name in section.validation if name in solved)
    return max(rounds, key=means.__getitem__)


def _pairs(models: Sequence[Model], benchmarks: Sequence[str]) -> tuple[list[Pair], list[str]]:
    """Every pair on every benchmark that is reported, Holm's adjustment over all of them; and why a pair could not be made."""
    chosen = (
        list(combinations(models, 2))
        if len(models) <= MAX_ALL_PAIRS
        else [(models[0], m) for m in models[1:]]
    )
    tested, unpaired = [], []
    for first, second in chosen:
        for name, (ours, theirs) in common(first.solved, second.solved).items():
            others = sum(
                first.golds[key] != second.golds[key]
                for key in first.golds.keys() & second.golds.keys()
                if key[0] == name
            )
            if others:
                unpaired.append(
                    f"{first.name} and {second.name} on {name}: {others} of {len(ours)} problems have another gold answer, so the sets differ"
                )
            elif name in benchmarks:
                found = paired(ours, theirs)
                whole = set(ours) | set(theirs) <= {0.0, 1.0}
                tested.append((name, first.name, second.name, found, found.p_mcnemar if whole else found.p))
    adjusted = holm([t[4] for t in tested])
    pairs = [
        Pair(benchmark=name, first=first, second=second, paired=found, p=p, p_holm=p_holm)
        for (name, first, second, found, p), p_holm in zip(tested, adjusted, strict=True)
    ]
    return sorted(pairs, key=lambda p: benchmarks.index(p.benchmark)), unpaired


def _differences(models: Sequence[Model]) -> dict[str, tuple[str, ...]]:
    """What the models were asked differently, setting by setting: scores under different ones are not of models alone."""
    settings = {f"score.{key}": [str(getattr(m.section, key)) for m in models] for key in ASKING}
    settings |= {
        f"prompts.{key}": [m.run.config.prompts.model_dump()[key] or "" for m in models]
        for key in ("respond_system", "respond_user", "respond_plain")
    }
    settings |= {"engine.dtype": [m.run.config.engine.dtype for m in models]}
    return {key: tuple(values) for key, values in settings.items() if len(set(values)) > 1}
