"""What a sweep has found: its trials with their scores, states and costs, its settings over seeds, and which differences
are shown.

Trials that differ in nothing but the replicate key are one setting. A trial's policy is that of its best round on
validation where the runs score a validation set, else of its last scored round; settings are ranked by validation
likewise, and reported on the headline benchmarks.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import JsonValue

from evaluation.compare import ByProblem, by_problem
from evaluation.scores import Score
from evaluation.seeds import over_seeds
from jobs.costs.accounting import Cost, account
from jobs.reporting import policies
from jobs.reporting.policies import Pair, Seeds
from jobs.runs.state import Looks
from jobs.sweeps.trials import Sweep, Trial, sweep_dir
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError, ending
from serl.stages.read import left, round_grades

MAX_ALL_PAIRS = 8  # with more settings, each is compared with the best alone
CACHE = "solved.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFindings:
    """One trial: `means` by round and benchmark, `chosen` its round, `solved` the problems that its policy solved."""

    trial: Trial
    run: Run | None = None
    word: str = "not begun"
    reason: str = ""
    means: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    chosen: int | None = None
    solved: ByProblem = dataclasses.field(default_factory=dict)
    cost: Cost = Cost()

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it: done, or ended early; its score then counts."""
        return self.chosen is not None and self.word in ("done", "ended early")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Trials that only repeat each other, by replicate; those that count are in `over`."""

    label: str
    overrides: Mapping[str, JsonValue]
    trials: tuple[TrialFindings, ...]
    over: Mapping[str, TrialFindings]

    @property
    def solved(self) -> Seeds:
        return {replicate: t.solved for replicate, t in self.over.items()}

    @property
    def cost(self) -> Cost:
        return sum((t.cost for t in self.trials), Cost())

    def seeds(self, benchmark: str) -> Score:
        """Its score over seeds, of the chosen rounds."""
        return policies.seeds_score(self.solved, benchmark)

    def base(self, benchmark: str) -> Score:
        """That of its base models."""
        found = [t.means.get(0, {}).get(benchmark) for t in self.over.values()]
        return over_seeds([value for value in found if value is not None])

    def problems(self, benchmark: str) -> Score:
        """Its score over problems: how well these very policies were measured."""
        return policies.problems_score(self.solved, benchmark)

    def rank(self, benchmarks: Sequence[str]) -> float:
        """The mean over benchmarks, to order settings by."""
        found = [s.value for name in benchmarks if (s := self.seeds(name)).n]
        return fmean(found) if found else float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFindings:
    """A sweep, as far as it is; settings best first, those of which fewer seeds are over after the others: few seeds
    make lucky winners.
    """

    sweep: Sweep
    settings: tuple[Setting, ...]
    benchmarks: tuple[str, ...]
    validation: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def trials(self) -> list[TrialFindings]:
        return [t for s in self.settings for t in s.trials]

    @property
    def ranked_by(self) -> tuple[str, ...]:
        return self.validation or self.benchmarks

    @property
    def columns(self) -> tuple[str, ...]:
        return self.validation + self.benchmarks

    @property
    def names(self) -> dict[str, str]:
        """Short names of the keys that settings override."""
        return short_keys([key for s in self.settings for key in s.overrides])

    @property
    def axes(self) -> dict[str, list[JsonValue]]:
        """The keys that settings differ in, with each setting's value in the settings' order; None where a trial leaves
        the base's.
        """
        keys = dict.fromkeys(key for s in self.settings for key in s.overrides)
        columns = {key: [s.overrides.get(key) for s in self.settings] for key in keys}
        return {
            key: values
            for key, values in columns.items()
            if len({json.dumps(v, sort_keys=True) for v in values}) > 1
        }

    def role(self, benchmark: str) -> str:
        return "validation" if benchmark in self.validation else "headline"


def gather_sweep(sweep: Sweep, data: Path) -> SweepFindings:
    """Read every trial as far as it is."""
    solved = _Solved(sweep_dir(data, sweep.name) / CACHE)
    looks = Looks()
    runs = {t.id: _opened(data / "runs" / t.run, looks) for t in sweep.trials}
    there = {id: run for id, run in runs.items() if isinstance(run, Run)}
    states = dict(zip(there, looks(list(there.values())), strict=True))
    trials = []
    for t in sweep.trials:
        if isinstance(run := runs[t.id], Run):
            trials.append(_trial(t, run, states[t.id].word, "; ".join(states[t.id].causes()), solved))
        else:
            trials.append(TrialFindings(trial=t, word="damaged" if run else "not begun", reason=run))
    solved.keep()
    asked = [policies.asked(t.run) for t in trials if t.run]
    validation = tuple(dict.fromkeys(name for _, apart in asked for name in apart))
    named = dict.fromkeys(name for names, _ in asked for name in names if name not in validation)
    benchmarks = tuple(named)

    def order(s: Setting) -> tuple:
        return -len(s.over), -s.rank(validation or benchmarks), s.label

    settings = tuple(sorted(_settings(sweep, trials), key=order))
    able = {s.label: s.solved for s in settings if s.over}
    pairs = tuple(policies.compared(able, benchmarks, MAX_ALL_PAIRS))
    return SweepFindings(
        sweep=sweep, settings=settings, benchmarks=benchmarks, validation=validation, pairs=pairs
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


def _trial(trial: Trial, run: Run, word: str, reason: str, solved: "_Solved") -> TrialFindings:
    by_round: dict[int, ByProblem] = {}
    try:
        by_round = {round: solved(run, round) for round in policies.scored_rounds(run)}
    except RunError as e:
        word, reason = "damaged", str(e)
    if (ended := ending(run.root)) and word == "done":
        word, reason = "ended early", f"after round {ended['round']}: {ended['reason']}"
    means = {round: policies.means(found) for round, found in by_round.items()}
    best = policies.best_round(means, policies.asked(run)[1])
    chosen = max(means, default=None) if best is None else best
    return TrialFindings(
        trial=trial,
        run=run,
        word=word,
        reason=reason,
        means=means,
        chosen=chosen,
        solved={} if chosen is None else by_round[chosen],
        cost=account(run).total,
    )


def _settings(sweep: Sweep, trials: Sequence[TrialFindings]) -> list[Setting]:
    key = sweep.config.replicate
    groups: dict[str, list[TrialFindings]] = {}
    for t in trials:
        groups.setdefault(t.trial.setting(key), []).append(t)
    short = short_keys([name for t in trials for name in t.trial.overrides])
    settings = []
    for members in groups.values():
        overrides = {name: value for name, value in members[0].trial.overrides.items() if name != key}
        named = {short[name]: value for name, value in overrides.items()}
        label = str(dataclasses.replace(members[0].trial, overrides=named))
        over = {replicate_of(t.trial, key): t for t in members if t.over}
        settings.append(Setting(label=label, overrides=overrides, trials=tuple(members), over=over))
    return settings


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by as few of its last words as tell it from the others."""

    def ends(key: str, end: str) -> bool:
        return f".{key}".endswith(f".{end}")

    names = {}
    for key in dict.fromkeys(keys):
        words = key.split(".")
        shorter = [".".join(words[-n:]) for n in range(1, len(words) + 1)]
        own = (end for end in shorter if not any(ends(other, end) for other in keys if other != key))
        names[key] = next(own, key)
    return names


def replicate_of(trial: Trial, key: str) -> str:
    """What tells the trial from its repetitions; trials without the key are one of a kind."""
    return json.dumps(trial.overrides.get(key), sort_keys=True)


def value_text(key: str, value: JsonValue) -> str:
    """A value as the sweep's own table shows it."""
    if value is None:
        return "base"
    return str(Trial(id="", overrides={key: value}, run="")).removeprefix(f"{key}=")


class _Solved:
    """Which problems a policy solved, kept under the digests of its score manifests: grades are many, and are read
    once.
    """

    def __init__(self, path: Path):
        self._path = path
        self._used: dict[str, ByProblem] = {}
        try:
            self._known = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            self._known = {}

    def __call__(self, run: Run, round: int) -> ByProblem:
        digests = [m.digest for m in left(run, policies.scoring(run, round))]
        key = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
        if key not in self._used:
            self._used[key] = self._known.get(key) or by_problem(round_grades(run, round))
        return self._used[key]

    def keep(self) -> None:
        if self._used.keys() != self._known.keys():
            write_atomic(self._path, json.dumps(self._used).encode())
