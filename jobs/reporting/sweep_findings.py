"""A sweep as a contest: its trials with their scores, states and costs, its settings over seeds, and which
differences are shown.

Trials that differ in nothing but the replicate key are one setting. A trial's policy is that of its best
round on validation where the runs score a validation set, else of its last scored round; settings are ranked
by validation likewise, and reported on the headline benchmarks.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from evaluation.compare import ByProblem, by_problem
from jobs.costs.accounting import account
from jobs.reporting import policies
from jobs.reporting.policies import Contest, Setting, Tried, compared
from jobs.runs.state import Looks, State
from jobs.sweeps.trials import Sweep, Trial, short_keys, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError, ending
from serl.stages import exams
from serl.stages.read import left

CACHE = "solved.json"


def gather_sweep(sweep: Sweep, data: Path) -> Contest:
    """Read every trial as far as it is; settings best first, those of which fewer seeds are over after the
    others: few seeds make lucky winners.
    """
    solved, looks = _Solved(sweep_dir(data, sweep.name) / CACHE), Looks()
    opened = [_opened(t, data, looks) for t in sweep.trials]
    there = [t.run for t in opened if t.run]
    states = iter(looks(there))
    trials = [_with_scores(t, next(states), solved) if t.run else t for t in opened]
    solved.keep()
    asked = [exams.asked(t.run.config) for t in trials if t.run]
    validation = tuple(dict.fromkeys(name for _, apart in asked for name in apart))
    named = dict.fromkeys(name for names, _ in asked for name in names if name not in validation)
    benchmarks = tuple(named)

    def order(s: Setting) -> tuple:
        return -len(s.over), -s.rank(validation or benchmarks), s.label

    settings = tuple(sorted(_settings(sweep, trials), key=order))
    return Contest(
        name=sweep.name,
        settings=settings,
        benchmarks=benchmarks,
        validation=validation,
        pairs=compared({s.label: s.solved for s in settings if s.over}, benchmarks),
        replicate=sweep.config.replicate,
    )


def _opened(trial: Trial, data: Path, looks: Looks) -> Tried:
    """With its run, if that was made; one that cannot be read says why."""
    known = Tried(name=trial.run, id=trial.id, overrides=trial.overrides)
    try:
        if run := trial.opened(data):
            looks.learn(run)
        return replace(known, run=run)
    except RunError as e:
        return replace(known, word="damaged", reason=str(e))


def _with_scores(known: Tried, state: State, solved: "_Solved") -> Tried:
    run, word, reason = state.run, state.word, "; ".join(state.causes())
    cost = account(run).total
    try:
        by_round = {round: solved(run, round) for round in exams.scored_rounds(run)}
    except RunError as e:
        return replace(known, word="damaged", reason=str(e), cost=cost)
    if (ended := ending(run.root)) and word == "done":
        word, reason = "ended early", f"after round {ended['round']}: {ended['reason']}"
    means = {round: policies.means(found) for round, found in by_round.items()}
    best = policies.best(means, exams.asked(run.config)[1])
    chosen = max(means, default=None) if best is None else best
    own = {} if chosen is None else by_round[chosen]
    return replace(known, word=word, reason=reason, means=means, chosen=chosen, solved=own, cost=cost)


def _settings(sweep: Sweep, trials: Sequence[Tried]) -> list[Setting]:
    key = sweep.config.replicate
    groups: dict[str, list[Tried]] = {}
    for t, found in zip(sweep.trials, trials, strict=True):
        groups.setdefault(t.setting(key), []).append(found)
    short = short_keys([name for t in trials for name in t.overrides])
    settings = []
    for members in groups.values():
        overrides = {name: value for name, value in members[0].overrides.items() if name != key}
        label = str(Trial(id="", run="", overrides={short[name]: value for name, value in overrides.items()}))
        over = {replicate_of(t, key): t for t in members if t.over}
        settings.append(Setting(label=label, overrides=overrides, trials=tuple(members), over=over))
    return settings


def replicate_of(trial: Tried, key: str) -> str:
    """What tells the trial from its repetitions; trials without the key are one of a kind."""
    return json.dumps(trial.overrides.get(key), sort_keys=True)


def value_text(key: str, value: JsonValue) -> str:
    """A value as the sweep's own table shows it."""
    if value is None:
        return "base"
    return str(Trial(id="", overrides={key: value}, run="")).removeprefix(f"{key}=")


def is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Solved:
    """Which problems a policy solved, kept under the digests of its score manifests: grades are many, and are
    read once.
    """

    def __init__(self, path: Path):
        self._path = path
        self._used: dict[str, ByProblem] = {}
        try:
            self._known = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            self._known = {}

    def __call__(self, run: Run, round: int) -> ByProblem:
        digests = [m.digest for s in exams.exams(run.config, round) for m in left(run, s)]
        key = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
        if key not in self._used:
            self._used[key] = self._known.get(key) or by_problem(exams.round_grades(run, round))
        return self._used[key]

    def keep(self) -> None:
        if self._used.keys() != self._known.keys():
            write_atomic(self._path, json.dumps(self._used).encode())
