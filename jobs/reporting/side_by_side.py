"""Several models as a contest: the same benchmarks side by side, and what may be said of each difference. A
model is a scored round of a run, or a policy that was published within one and scored. Each is a setting of
its own; the first is what the others are compared with.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.compare import by_problem
from evaluation.summary import summarise
from jobs.reporting import policies
from jobs.reporting.contest import Contest, Setting, Tried
from jobs.reporting.policies import compared, matched
from jobs.runs.find import find_run
from serl.run.rundir import Run, RunError
from serl.stages.exams import asked, exams, round_grades, scored
from serl.stages.kind import AT
from serl.stages.show import show_of

MAX_NAME = 80
PROMPTS = ("respond_system", "respond_user", "respond_plain")


def side_by_side(names: Sequence[str], data: Path) -> Contest:
    """Models named RUN (its last scored round), RUN:ROUND, RUN:ROUND@TURN (published within it), or RUN:best
    (on validation).
    """
    models = [_model(name, data) for name in names]
    if len({(m.run.root, _place(m.chosen, m.milestone)) for m in models}) < len(models):
        raise ValueError(
            f"{' '.join(names)}: a round of a run is named twice; name each once, as RUN:ROUND where it is "
            "not the last scored one"
        )
    if len({m.name for m in models}) < len(models):  # runs of one name in different places
        models = [replace(m, name=f"{m.run.root}, {policies.told(m.chosen, m.milestone)}") for m in models]
    found = list(dict.fromkeys(name for m in models for name in m.scores))
    apart = {name for m in models for name in asked(m.run.config)[1]}
    benchmarks = tuple(name for name in found if name not in apart)
    unlike = _unlike(models)
    whole = "+".join(f"{m.run.root.name}-{_place(m.chosen, m.milestone)}" for m in models)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return Contest(
        name=whole if len(whole) <= MAX_NAME else f"{whole[: MAX_NAME - 9]}-{digest}",
        settings=tuple(Setting(label=m.name, trials=(m,)) for m in models),
        benchmarks=benchmarks,
        validation=tuple(name for name in found if name in apart),
        pairs=compared({m.name: {"": m.solved} for m in models}, benchmarks, unlike),
        unpaired=tuple(unlike.values()),
        asked_differently=_differences(models),
    )


def _model(name: str, data: Path) -> Tried:
    run_name, colon, wanted = name.rpartition(":")
    run = find_run(run_name if colon else name, data)
    round, milestone = _wanted(run, wanted if colon else "")
    grades = round_grades(run, round, milestone)
    solved = by_problem(grades)
    return Tried(
        name=f"{run.root.name}, {policies.told(round, milestone)}" if run.config.rounds else run.root.name,
        run=run,
        word="done",
        means={round: policies.means(solved)},
        chosen=round,
        milestone=milestone,
        solved=solved,
        scores=summarise(grades),
        golds={(g.benchmark, g.id): g.gold for g in grades},
    )


def _wanted(run: Run, place: str) -> tuple[int, int]:
    """The round and milestone of a policy that is named by its place in a run."""
    name, places = run.root.name, {_place(*at): at for at in scored(run)}
    rounds = [round for round, milestone in places.values() if not milestone]
    if not rounds:
        how_far = f"`python -m jobs.status {name}` says how far it is"
        raise RunError(f"{run.root}: no round of this run is scored yet; {how_far}")
    if not place:
        return rounds[-1], 0
    if place in places:
        return places[place]
    if place != "best":
        there = f"there are {', '.join(places)}, and `best` where a validation set was scored"
        raise RunError(f"{name}:{place}: no scored round {place!r}; {there}")
    if (best := policies.best_of(run)) is None:
        key = f"{exams(run.config, rounds[-1])[0].name}.validation"
        why = f"it has no validation set ({key}) to choose the best round by"
        raise RunError(f"{run.root}: {why}; name a round, as {name}:{rounds[-1]}")
    return best


def _place(round: int, milestone: int) -> str:
    """As in RUN:PLACE."""
    return f"{round}{AT}{milestone}" if milestone else str(round)


def _unlike(models: Sequence[Tried]) -> dict[tuple[str, str, str], str]:
    """Why two models cannot be paired on a benchmark: problems of one name are not the same ones."""
    found = {}
    for first, second in matched(models):
        shared = first.golds.keys() & second.golds.keys()
        for benchmark in sorted({name for name, _ in shared}):
            mine = [key for key in shared if key[0] == benchmark]
            if others := sum(first.golds[key] != second.golds[key] for key in mine):
                found[benchmark, first.name, second.name] = (
                    f"{first.name} and {second.name} on {benchmark}: {others} of {len(mine)} problems have "
                    "another gold answer, so the sets differ"
                )
    return found


def _differences(models: Sequence[Tried]) -> dict[str, tuple[str, ...]]:
    """What the models were asked differently, setting by setting: scores under different ones are not of
    models alone.
    """
    told = []
    for m in models:
        config = m.run.config
        mine = {f"prompts.{key}": getattr(config.prompts, key) or "" for key in PROMPTS}
        for s in exams(config, m.chosen, m.milestone):
            mine |= {f"{s.listed}.{k}": v for k, v in show_of(s.kind).asking(s.section).items()}
            mine[f"{s.listed}.engine.dtype"] = s.kind.held(s.section, config).dtype
        told.append(mine)
    keys = dict.fromkeys(key for mine in told for key in mine)
    settings = {key: tuple(mine.get(key, "") for mine in told) for key in keys}
    return {key: values for key, values in settings.items() if len(set(values)) > 1}
