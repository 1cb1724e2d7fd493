"""What a sweep has found: its trials with their scores, states and costs, its settings over seeds, and which differences are shown.

Trials that differ in nothing but the replicate key are one setting. A trial's policy is that of its best round on validation where the runs
score a validation set, else of its last scored round; settings are ranked by validation likewise, and reported on the headline benchmarks.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
from pydantic import JsonValue

from evaluation.compare import ByProblem, by_problem
from evaluation.scores import Score, score
from evaluation.seeds import Difference, crossed, holm, over_seeds, verdict
from jobs.costs.accounting import Cost, account
from jobs.reporting.side_by_side import scored_rounds
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
    run: Run | None
    word: str
    reason: str
    means: Mapping[int, Mapping[str, float]]
    chosen: int | None
    solved: ByProblem
    cost: Cost

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

    def seeds(self, benchmark: str, *, at: int | None = None) -> Score:
        """Its score over seeds, of the chosen rounds or of one."""
        found = [t.means.get(t.chosen if at is None else at, {}).get(benchmark) for t in self.over.values()]
        return over_seeds([value for value in found if value is not None])

    def problems(self, benchmark: str) -> Score:
        """Its score over problems, the seeds of each averaged first: how well these very policies were measured."""
        columns = [t.solved[benchmark] for t in self.over.values() if benchmark in t.solved]
        shared = set.intersection(*(set(c) for c in columns)) if columns else set()
        return score([fmean(column[id] for column in columns) for id in sorted(shared)])

    def rank(self, benchmarks: Sequence[str]) -> float:
        """The mean over benchmarks, to order settings by."""
        found = [s.value for name in benchmarks if (s := self.seeds(name)).n]
        return fmean(found) if found else float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingPair:
    """The second setting against the first on one benchmark."""

    benchmark: str
    first: str
    second: str
    found: Difference
    p_holm: float

    @property
    def word(self) -> str:
        return verdict(self.found.difference, self.p_holm)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFindings:
    """A sweep, as far as it is; settings best first, those of which fewer seeds are over after the others: few seeds make lucky winners."""

    sweep: Sweep
    settings: tuple[Setting, ...]
    benchmarks: tuple[str, ...]
    validation: tuple[str, ...]
    pairs: tuple[SettingPair, ...]

    @property
    def trials(self) -> list[TrialFindings]:
        return [t for s in self.settings for t in s.trials]

    @property
    def ranked_by(self) -> tuple[str, ...]:
        return self.validation or self.benchmarks

    @property
    def names(self) -> dict[str, str]:
        """Short names of the keys that settings override."""
        return short_keys([key for s in self.settings for key in s.overrides])

    @property
    def axes(self) -> dict[str, list[JsonValue]]:
        """The keys that settings differ in, with each setting's value in the settings' order; None where a trial leaves the base's."""
        keys = dict.fromkeys(key for s in self.settings for key in s.overrides)
        columns = {key: [s.overrides.get(key) for s in self.settings] for key in keys}
        return {
            key: values
            for key, values in columns.items()
            if len({json.dumps(v, sort_keys=True) for v in values}) > 1
        }


def gather_sweep(sweep: Sweep, data: Path) -> SweepFindings:
    """Read every trial as far as it is."""
    solved = _Solved(sweep_dir(data, sweep.name) / CACHE)
    looks = Looks()
    runs = {t.id: _opened(data / "runs" / t.run, looks) for t in sweep.trials}
    there = {id: run for id, run in runs.items() if isinstance(run, Run)}
    states = dict(zip(there, looks(list(there.values())), strict=True))
    trials = []
    for t in sweep.trials:
        run = runs[t.id]
        if isinstance(run, Run):
            word, reason = states[t.id].word, "; ".join(states[t.id].causes())
            trials.append(_trial(t, run, word, reason, solved))
        else:
            word = "damaged" if run else "not begun"
            trials.append(
                TrialFindings(
                    trial=t, run=None, word=word, reason=run, means={}, chosen=None, solved={}, cost=Cost()
                )
            )
    solved.keep()
    sections = [s.section for t in trials if t.run for s in t.run.config.stages if s.kind.gives == "grades"]
    validation = tuple(dict.fromkeys(name for s in sections for name in s.validation))
    benchmarks = tuple(
        dict.fromkeys(name for s in sections for name in s.benchmarks if name not in validation)
    )
    settings = sorted(
        _settings(sweep, trials), key=lambda s: (-len(s.over), -s.rank(validation or benchmarks), s.label)
    )
    return SweepFindings(
        sweep=sweep,
        settings=tuple(settings),
        benchmarks=benchmarks,
        validation=validation,
        pairs=tuple(_pairs(settings, benchmarks)),
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
        by_round = {round: solved(run, round) for round in scored_rounds(run)}
    except RunError as e:
        word, reason = "damaged", str(e)
    means = {
        round: {name: fmean(shares.values()) for name, shares in found.items()}
        for round, found in by_round.items()
    }
    if (ended := ending(run.root)) and word == "done":
        word, reason = "ended early", f"after round {ended['round']}: {ended['reason']}"
    scoring = run.config.giving(0, "grades")
    chosen = _chosen(means, scoring.section.validation if scoring else ())
    return TrialFindings(
        trial=trial, run=run, word=word, reason=reason, means=means, chosen=chosen, solved=by_round.get(chosen, {}) if chosen is not None else {},
        cost=account(run).total,
    )  # fmt: skip


def _chosen(means: Mapping[int, Mapping[str, float]], validation: Sequence[str]) -> int | None:
    """The best round on validation, the earliest of equals; without validation the last."""
    validated = {
        round: fmean(found[name] for name in validation if name in found)
        for round, found in means.items()
        if set(validation) & set(found)
    }
    return (
        max(validated, key=lambda round: (validated[round], -round))
        if validated
        else max(means, default=None)
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
        label = str(
            dataclasses.replace(
                members[0].trial, overrides={short[name]: value for name, value in overrides.items()}
            )
        )
        over = {replicate_of(t.trial, key): t for t in members if t.over}
        settings.append(Setting(label=label, overrides=overrides, trials=tuple(members), over=over))
    return settings


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by as few of its last words as tell it from the others."""
    names = {}
    for key in dict.fromkeys(keys):
        words = key.split(".")
        ends = (".".join(words[-n:]) for n in range(1, len(words) + 1))
        names[key] = next(
            (
                end
                for end in ends
                if not any(f".{other}".endswith(f".{end}") for other in keys if other != key)
            ),
            key,
        )
    return names


def replicate_of(trial: Trial, key: str) -> str:
    """What tells the trial from its repetitions; trials without the key are one of a kind."""
    return json.dumps(trial.overrides.get(key), sort_keys=True)


def value_text(key: str, value: JsonValue) -> str:
    """A value as the sweep's own table shows it."""
    return (
        "base" if value is None else str(Trial(id="", overrides={key: value}, run="")).removeprefix(f"{key}=")
    )


def _pairs(settings: Sequence[Setting], benchmarks: Sequence[str]) -> list[SettingPair]:
    """Paired over the seeds and problems that both have, on every headline benchmark; Holm's adjustment over all of them."""
    able = [s for s in settings if s.over]
    chosen = list(combinations(able, 2)) if len(able) <= MAX_ALL_PAIRS else [(able[0], s) for s in able[1:]]
    tested = [
        (name, a.label, b.label, found)
        for name in benchmarks
        for a, b in chosen
        if (found := _compare(a, b, name)) is not None
    ]
    adjusted = holm([found.p for *_, found in tested])
    return [
        SettingPair(benchmark=name, first=first, second=second, found=found, p_holm=p)
        for (name, first, second, found), p in zip(tested, adjusted, strict=True)
    ]


def _compare(first: Setting, second: Setting, benchmark: str) -> Difference | None:
    seeds = [s for s in first.over if s in second.over]
    columns = [t.over[s].solved.get(benchmark, {}) for t in (first, second) for s in seeds]
    shared = sorted(set.intersection(*(set(c) for c in columns))) if columns else []
    if not shared:
        return None
    answers = np.array([[column[id] for id in shared] for column in columns])
    return crossed(answers[: len(seeds)], answers[len(seeds) :])


class _Solved:
    """Which problems a policy solved, kept under the digests of its score manifests: grades are many, and are read once."""

    def __init__(self, path: Path):
        self._path = path
        self._used: dict[str, ByProblem] = {}
        try:
            self._known = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            self._known = {}

    def __call__(self, run: Run, round: int) -> ByProblem:
        scoring = run.config.giving(round, "grades")
        digests = [m.digest for m in left(run, scoring)] if scoring else []
        key = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
        if key not in self._used:
            self._used[key] = self._known.get(key) or by_problem(round_grades(run, round))
        return self._used[key]

    def keep(self) -> None:
        if self._used.keys() != self._known.keys():
            write_atomic(self._path, json.dumps(self._used).encode())
