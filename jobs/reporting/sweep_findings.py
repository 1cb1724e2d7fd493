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

from evaluation.compare import ByProblem, by_problem
from jobs.costs.accounting import account
from jobs.reporting import policies
from jobs.reporting.contest import Contest, Setting, Tried
from jobs.reporting.policies import compared
from jobs.runs.state import Looks, State
from jobs.sweeps.trials import Sweep, Trial, labels, sweep_dir
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
    opened = [_opened(t, data, looks) for t in _named(sweep)]
    states = iter(looks([t.run for t in opened if t.run]))
    trials = [_with_scores(t, next(states), solved) if t.run else t for t in opened]
    solved.keep()
    asked = [exams.asked(t.run.config) for t in trials if t.run]
    validation = tuple(dict.fromkeys(name for _, apart in asked for name in apart))
    named = dict.fromkeys(name for names, _ in asked for name in names if name not in validation)
    benchmarks = tuple(named)

    def order(s: Setting) -> tuple:
        return -len(s.over), -s.rank(validation or benchmarks), s.label

    settings = tuple(sorted(_settings(trials, sweep.config.replicate), key=order))
    return Contest(
        name=sweep.name,
        settings=settings,
        benchmarks=benchmarks,
        validation=validation,
        pairs=compared({s.label: s.solved for s in settings if s.over}, benchmarks),
        replicate=sweep.config.replicate,
    )


def _named(sweep: Sweep) -> list[tuple[Trial, Tried]]:
    """Each trial with what it is called."""
    key = sweep.config.replicate
    alone = [replace(t, overrides={k: v for k, v in t.overrides.items() if k != key}) for t in sweep.trials]
    return [
        (t, Tried(name=t.run, id=t.id, setting=label, overrides=t.overrides, replicate=_replicate(t, key)))
        for t, label in zip(sweep.trials, labels(alone), strict=True)
    ]


def _replicate(trial: Trial, key: str) -> str:
    return json.dumps(trial.overrides[key], sort_keys=True) if key in trial.overrides else ""


def _opened(named: tuple[Trial, Tried], data: Path, looks: Looks) -> Tried:
    """With its run, if that was made; one that cannot be read says why."""
    trial, known = named
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


def _settings(trials: Sequence[Tried], replicate: str) -> list[Setting]:
    groups: dict[str, list[Tried]] = {}
    for t in trials:
        groups.setdefault(t.setting, []).append(t)
    own = {
        label: {k: v for k, v in some[0].overrides.items() if k != replicate}
        for label, some in groups.items()
    }
    return [Setting(label=label, overrides=own[label], trials=tuple(some)) for label, some in groups.items()]


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
