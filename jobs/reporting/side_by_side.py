"""Several models in one report: the same benchmarks side by side, and what may be said of each difference.

A model is a scored round of a run, or a policy that was published within one and scored.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.compare import ByProblem, by_problem
from evaluation.scores import Score
from evaluation.summary import Summary, summarise
from jobs.reporting import policies
from jobs.reporting.policies import Contest, Setting, Tried, compared, matched
from jobs.reporting.render import Table, p_value, table
from jobs.runs.find import find_run
from serl.run.rundir import Run, RunError
from serl.stages import exams
from serl.stages.exams import round_grades
from serl.stages.kind import AT, Stage
from serl.stages.show import show_of

MAX_ALL_PAIRS = 6  # with more models, each is compared with the first alone
MAX_NAME = 80
PROMPTS = ("respond_system", "respond_user", "respond_plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One policy with its scores; `solved` holds its greedy answers where there are any."""

    name: str
    run: Run
    round: int
    milestone: int
    stages: tuple[Stage, ...]
    scores: Mapping[str, Summary]
    solved: ByProblem
    golds: Mapping[tuple[str, str], str]

    @property
    def place(self) -> str:
        """As in RUN:PLACE."""
        return _place(self.round, self.milestone)

    def metric(self, benchmark: str, name: str | None = None) -> Score | None:
        """Without a name greedy pass@1 where it was measured, or the first metric that was."""
        metrics = self.scores[benchmark].metrics if benchmark in self.scores else {}
        return metrics.get(name) if name else next(iter(metrics.values()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide(Contest):
    """Models, each a setting of its own, the first being what the others are compared with."""

    models: tuple[Model, ...]
    unpaired: tuple[str, ...]
    asked_differently: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """What its folder is called: the same models in the same order have the same one."""
        whole = "+".join(f"{m.run.root.name}-{m.place}" for m in self.models)
        short = f"{whole[: MAX_NAME - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        return whole if len(whole) <= MAX_NAME else short


def side_by_side(names: Sequence[str], data: Path) -> SideBySide:
    """Models named RUN (its last scored round), RUN:ROUND, RUN:ROUND@TURN (published within it), or RUN:best
    (on validation); the first is what the others are compared with.
    """
    models = [_model(name, data) for name in names]
    if len({(m.run.root, m.place) for m in models}) < len(models):
        raise ValueError(
            f"{' '.join(names)}: a round of a run is named twice; name each once, as RUN:ROUND where it is "
            "not the last scored one"
        )
    if len({m.name for m in models}) < len(models):  # runs of one name in different places
        models = [replace(m, name=f"{m.run.root}, {policies.told(m.round, m.milestone)}") for m in models]
    found = list(dict.fromkeys(name for m in models for name in m.scores))
    apart = {name for m in models for name in exams.asked(m.run.config)[1]}
    benchmarks = tuple(name for name in found if name not in apart)
    unlike = _unlike(models)
    settings = tuple(_setting(m) for m in models)
    seeds = {s.label: s.solved for s in settings}
    return SideBySide(
        settings=settings,
        benchmarks=benchmarks,
        validation=tuple(name for name in found if name in apart),
        pairs=tuple(compared(seeds, benchmarks, MAX_ALL_PAIRS, set(unlike))),
        models=tuple(models),
        unpaired=tuple(unlike.values()),
        asked_differently=_differences(models),
    )


def _setting(m: Model) -> Setting:
    means = {m.round: policies.means(m.solved)}
    tried = Tried(name=m.run.root.name, run=m.run, word="done", means=means, chosen=m.round, solved=m.solved)
    return Setting(label=m.name, trials=(tried,), over={"": tried})


def _model(name: str, data: Path) -> Model:
    run_name, colon, wanted = name.rpartition(":")
    run = find_run(run_name if colon else name, data)
    places = {_place(*at): at for at in exams.scored(run)}
    rounds = [round for round, milestone in places.values() if not milestone]
    if not rounds:
        raise RunError(
            f"{run.root}: no round of this run is scored yet; `python -m jobs.status {run.root.name}` says "
            "how far it is"
        )
    if not colon:
        place = rounds[-1], 0
    elif wanted == "best":
        place = _best(run, rounds[-1])
    elif wanted in places:
        place = places[wanted]
    else:
        raise RunError(
            f"{name}: no scored round {wanted!r}; there are {', '.join(places)}, and `best` where a "
            "validation set was scored"
        )
    grades = round_grades(run, *place)
    return Model(
        name=f"{run.root.name}, {policies.told(*place)}" if run.config.rounds else run.root.name,
        run=run,
        round=place[0],
        milestone=place[1],
        stages=tuple(exams.exams(run.config, *place)),
        scores=summarise(grades),
        solved=by_problem(grades),
        golds={(g.benchmark, g.id): g.gold for g in grades},
    )


def _place(round: int, milestone: int) -> str:
    return f"{round}{AT}{milestone}" if milestone else str(round)


def _best(run: Run, last: int) -> tuple[int, int]:
    if (best := policies.best_of(run)) is not None:
        return best
    key = f"{exams.exams(run.config, last)[0].name}.validation"
    raise RunError(
        f"{run.root}: it has no validation set ({key}) to choose the best round by; name a round, as "
        f"{run.root.name}:{last}"
    )


def _unlike(models: Sequence[Model]) -> dict[tuple[str, str, str], str]:
    """Why two models cannot be paired on a benchmark: problems of one name are not the same ones."""
    found = {}
    for first, second in matched(models, MAX_ALL_PAIRS):
        shared = first.golds.keys() & second.golds.keys()
        for benchmark in dict.fromkeys(name for name, _ in sorted(shared)):
            mine = [key for key in shared if key[0] == benchmark]
            if others := sum(first.golds[key] != second.golds[key] for key in mine):
                found[benchmark, first.name, second.name] = (
                    f"{first.name} and {second.name} on {benchmark}: {others} of {len(mine)} problems have "
                    "another gold answer, so the sets differ"
                )
    return found


def _differences(models: Sequence[Model]) -> dict[str, tuple[str, ...]]:
    """What the models were asked differently, setting by setting: scores under different ones are not of
    models alone.
    """
    told = []
    for m in models:
        prompts = m.run.config.prompts.model_dump(include=set(PROMPTS))
        told.append(
            {f"{s.name}.{k}": v for s in m.stages for k, v in show_of(s.kind).asking(s.section).items()}
            | {f"prompts.{key}": prompts[key] or "" for key in PROMPTS}
            | {"engine.dtype": m.run.config.engine.dtype}
        )
    keys = dict.fromkeys(key for settings in told for key in settings)
    settings = {key: tuple(mine.get(key, "") for mine in told) for key in keys}
    return {key: values for key, values in settings.items() if len(set(values)) > 1}


# ----------------------------------------------------------------------------------- what the page adds
def facts(found: SideBySide) -> dict[str, object]:
    """Beside what the page of any contest shows."""
    asked = [(key, *values) for key, values in found.asked_differently.items()]
    return {
        "unpaired": found.unpaired,
        "metrics": _metrics(found),
        "asked": table(("setting", *(m.name for m in found.models)), asked),
    }


def headlines(found: SideBySide) -> list[str]:
    """One sentence per other model: where it is better than the first, where worse, and where neither is
    shown.
    """
    first, *others = found.models
    if not others:
        return [f"{first.name} alone: nothing to compare it with."]
    sentences = []
    for model in others:
        told = [
            f"{p.told} on {p.benchmark}, {100 * p.found.difference:+.1f} points "
            f"({p.found.num_problems} problems, adjusted {p_value(p.p)})"
            for p in found.pairs
            if (p.first, p.second) == (first.name, model.name)
        ]
        sentences.append(f"{model.name} against {first.name}: {'; '.join(told) or 'no benchmark in common'}.")
    return sentences


def _metrics(found: SideBySide) -> Table:
    """Every metric of every benchmark that is reported."""
    there = [(n, m.scores[n].metrics) for n in found.benchmarks for m in found.models if n in m.scores]
    keys = dict.fromkeys((name, metric) for name, metrics in there for metric in metrics)
    rows = [(name, metric, *(m.metric(name, metric) for m in found.models)) for name, metric in keys]
    return table(("benchmark", "metric", *(m.name for m in found.models)), rows)


def score_rows(found: SideBySide) -> Table:
    """Every score of every model, tidy, for CSV."""
    rows = [
        (m.run.root.name, m.round, name, "validation" if name in found.validation else "headline", metric,
         s.value, s.stderr, s.low, s.high, s.n)
        for m in found.models for name, summary in m.scores.items() for metric, s in summary.metrics.items()
    ]  # fmt: skip
    return table("run | round | benchmark | role | metric | value | stderr | low | high | n", rows)
