"""What a sweep has found: its trials with their scores, states and costs, its settings over seeds, and which
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
from jobs.runs.state import Looks
from jobs.sweeps.trials import Sweep, Trial, short_keys, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError, ending
from serl.stages import exams
from serl.stages.read import left

MAX_ALL_PAIRS = 8  # with more settings, each is compared with the best alone
CACHE = "solved.json"


def gather_sweep(sweep: Sweep, data: Path) -> Contest:
    """Read every trial as far as it is; settings best first, those of which fewer seeds are over after the
    others: few seeds make lucky winners.
    """
    solved = _Solved(sweep_dir(data, sweep.name) / CACHE)
    looks = Looks()
    runs = {t.id: _opened(data / "runs" / t.run, looks) for t in sweep.trials}
    there = {id: run for id, run in runs.items() if isinstance(run, Run)}
    states = dict(zip(there, looks(list(there.values())), strict=True))
    trials = []
    for t in sweep.trials:
        known = Tried(name=t.run, id=t.id, overrides=t.overrides)
        if isinstance(run := runs[t.id], Run):
            word, causes = states[t.id].word, "; ".join(states[t.id].causes())
            trials.append(_tried(replace(known, run=run, word=word, reason=causes), run, solved))
        else:
            trials.append(replace(known, word="damaged" if run else "not begun", reason=run))
    solved.keep()
    asked = [exams.asked(t.run.config) for t in trials if t.run]
    validation = tuple(dict.fromkeys(name for _, apart in asked for name in apart))
    named = dict.fromkeys(name for names, _ in asked for name in names if name not in validation)
    benchmarks = tuple(named)

    def order(s: Setting) -> tuple:
        return -len(s.over), -s.rank(validation or benchmarks), s.label

    settings = tuple(sorted(_settings(sweep, trials), key=order))
    able = {s.label: s.solved for s in settings if s.over}
    return Contest(
        settings=settings,
        benchmarks=benchmarks,
        validation=validation,
        pairs=tuple(compared(able, benchmarks, MAX_ALL_PAIRS)),
        replicate=sweep.config.replicate,
    )


def _opened(root: Path, looks: Looks) -> Run | str:
    """The trial's run; why it cannot be read, or nothing where it was not made yet."""
    if not (root / "run.json").exists():
        return ""
    try:
        run = Run.open(root)
        looks.learn(run)
    except RunError as e:
        return str(e)
    return run


def _tried(known: Tried, run: Run, solved: "_Solved") -> Tried:
    """With what its scores say."""
    by_round: dict[int, ByProblem] = {}
    word, reason = known.word, known.reason
    try:
        by_round = {round: solved(run, round) for round in exams.scored_rounds(run)}
    except RunError as e:
        word, reason = "damaged", str(e)
    if (ended := ending(run.root)) and word == "done":
        word, reason = "ended early", f"after round {ended['round']}: {ended['reason']}"
    means = {round: policies.means(found) for round, found in by_round.items()}
    best = policies.best(means, exams.asked(run.config)[1])
    chosen = max(means, default=None) if best is None else best
    own = {} if chosen is None else by_round[chosen]
    cost = account(run).total
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
