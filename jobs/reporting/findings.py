"""Everything that a report says of a run, computed from its manifests, groups, grades and events; nothing is drawn or written here.

A run may be at any point: what is not done, or cannot be read, is a sentence in `missing`, and the rest is found all the same.
Rounds are read one after another and only figures and a few examples are kept, so memory holds one stage of one round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeVar

from evaluation.compare import ByProblem, by_problem, common
from evaluation.scores import Score, mcnemar
from evaluation.stored import Grade
from evaluation.summary import summarise
from jobs.plan.chain import steps
from jobs.reporting import harvest, hygiene
from jobs.reporting.harvest import Passage, Votes
from jobs.reporting.hygiene import Hygiene
from serl.run.events import read_events
from serl.run.rundir import Manifest, Run, RunError
from serl.stages.read import problems, round_grades, round_groups
from serl.stages.work import corpus_dir

T = TypeVar("T")

SIGNIFICANCE = 0.05
EVENT_KEYS = {"time", "kind", "stage", "round", "shard", "step"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFindings:
    """How far a stage of a round is; `longest_s` is its slowest shard, `total_s` all shards together."""

    round: int
    stage: str
    gives: str
    num_done: int
    num_shards: int
    longest_s: float
    total_s: float
    ended: float
    counts: Mapping[str, float]

    @property
    def done(self) -> bool:
        return self.num_done == self.num_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A policy against the base on the same problems, greedily: the exact paired test, and what it allows to be said."""

    benchmark: str
    base: float
    value: float
    n: int
    p: float

    @property
    def word(self) -> Literal["better", "not shown better", "worse"]:
        if self.p >= SIGNIFICANCE or self.value == self.base:
            return "not shown better"
        return "better" if self.value > self.base else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A policy's scores on one benchmark; `silent` is the share of greedy responses that gave no answer."""

    metrics: Mapping[str, Score]
    silent: float | None

    @property
    def main(self) -> Score:
        """Greedy pass@1 where it was measured, or the first metric that was."""
        return self.metrics.get("pass_at_1") or next(iter(self.metrics.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step as the trainer reported it."""

    step: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFindings:
    """What is known of one round; an empty part is one that is not done. `validation` are scores to choose by, apart from those that are reported."""

    round: int
    stages: tuple[StageFindings, ...]
    funnel: tuple[Passage, ...]
    votes: Votes | None
    scores: Mapping[str, Benchmark]
    validation: Mapping[str, Benchmark]
    comparisons: tuple[Comparison, ...]
    steps: tuple[Step, ...]
    phases: Mapping[str, float]

    def counts(self, gives: str) -> Mapping[str, float]:
        """Of the round's first stage that gives such records, once it is done."""
        return next((s.counts for s in self.stages if s.gives == gives and s.done), {})

    @property
    def seconds(self) -> float:
        """The slowest shard of each stage, added up: the round's duration if shards run side by side."""
        return sum(s.longest_s for s in self.stages)

    @property
    def started(self) -> bool:
        return any(s.num_done for s in self.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A run, as far as it is."""

    run: Run
    rounds: tuple[RoundFindings, ...]
    missing: tuple[str, ...]
    overlap: Hygiene

    @property
    def scored(self) -> list[RoundFindings]:
        return [r for r in self.rounds if r.scores]

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(name for r in self.rounds for name in r.scores))

    @property
    def chosen(self) -> RoundFindings | None:
        """The round whose policy solves most of the validation problems, the mean over its sets; the earliest of equals."""
        validated = [r for r in self.rounds if r.validation]
        return max(validated, key=lambda r: fmean(b.main.value for b in r.validation.values()), default=None)


class _Reader:
    """Reads stages of a run; what is damaged becomes a sentence instead of the end of the report."""

    def __init__(self, run: Run):
        self.run = run
        self.troubles: list[str] = []

    def __call__(self, otherwise: T, read: Callable[..., T], *arguments: object) -> T:
        try:
            return read(*arguments)
        except RunError as e:
            self.troubles.append(str(e))
            return otherwise


def gather(run: Run) -> Findings:
    """Read a run once, from first round to last."""
    read = _Reader(run)
    progress: dict[int, list[StageFindings]] = {}
    for round, stage in steps(run.config):
        progress.setdefault(round, []).append(_stage(read, round, stage))
    taught, phases = _training(run)
    base: ByProblem = {}
    rounds = []
    for round, stages in progress.items():
        done = {s.gives for s in stages if s.done}
        grades = read([], round_grades, run, round) if "grades" in done else []
        greedy = by_problem([g for g in grades if g.mode == "greedy"])
        scores = _scores(grades)
        scoring = run.config.giving(round, "grades")
        to_choose_by = set(scoring.section.validation if scoring else ())
        base = greedy if round == 0 else base
        votes = read(None, _votes, run, round) if "groups" in done else None
        rounds.append(
            RoundFindings(
                round=round,
                stages=tuple(stages),
                funnel=tuple(_funnel(run, stages, votes)),
                votes=votes,
                scores={name: found for name, found in scores.items() if name not in to_choose_by},
                validation={name: found for name, found in scores.items() if name in to_choose_by},
                comparisons=tuple(c for c in _compare(base, greedy) if c.benchmark not in to_choose_by)
                if round
                else (),
                steps=tuple(
                    Step(step=n, numbers=numbers) for n, numbers in sorted(taught.get(round, {}).items())
                ),
                phases=phases.get(round, {}),
            )
        )
    overlap = _overlap(read, [r.round for r in rounds if r.counts("problems")])
    return Findings(
        run=run, rounds=tuple(rounds), missing=tuple(_missing(rounds) + read.troubles), overlap=overlap
    )


def _overlap(read: _Reader, curated: Sequence[int]) -> Hygiene:
    """What the questions that the run learns from share with the benchmarks it is scored on."""
    run, config = read.run, read.run.config
    chosen = [s for round in curated if (s := config.giving(round, "problems"))]
    asked = [p.question for stage in chosen for p in read([], problems, run, stage)]
    labelled = next((s.section.problems for s in config.stages if s.kind.gives == "groups"), None)
    sources = {"seeds": config.seeds, "labelled problems": labelled.source if labelled else None}
    sources = {name: source for name, source in sources.items() if source}
    return hygiene.measure(run, corpus_dir(run), sources, {"instructions": asked} if asked else {})


def _stage(read: _Reader, round: int, stage: str) -> StageFindings:
    run = read.run
    shards = run.shards(round, stage)
    found: list[Manifest] = [m for s in shards if (m := read(None, run.manifest, s))]
    counts: dict[str, float] = {}
    for m in found:
        counts |= {name: counts.get(name, 0) + n for name, n in m.counts.items()}
    seconds = [m.seconds for m in found]
    return StageFindings(
        round=round, stage=stage, gives=run.config.stage(round, stage).kind.gives, num_done=len(found), num_shards=len(shards), longest_s=max(seconds, default=0.0), total_s=sum(seconds),
        ended=max((m.created for m in found), default=0.0), counts=counts,
    )  # fmt: skip


def _votes(run: Run, round: int) -> Votes | None:
    groups = round_groups(run, round, completions=False)
    return harvest.votes(run.config, round, groups) if groups else None


def _funnel(run: Run, stages: Sequence[StageFindings], votes: Votes | None) -> list[Passage]:
    """The passages of the stages that are done, in their order."""
    counts = {s.gives: s.counts for s in stages if s.done}
    passages: list[Passage] = []
    if "candidates" in counts:
        passages += harvest.proposed(counts["candidates"])
    if "problems" in counts:
        passages += harvest.curated(counts["problems"])
    if votes:
        answering = run.config.giving(stages[0].round, "groups")
        labelled = answering.section.problems if answering else None
        kept = int(counts.get("problems", {}).get("kept", votes.num_groups))
        num_asked = labelled.per_round if labelled else kept
        if labelled:
            passages.append(Passage(name="asked", count=num_asked, lost={}))
        passages += harvest.answered(num_asked, votes)
    return passages


def _training(run: Run) -> tuple[dict[int, dict[int, dict[str, float]]], dict[int, dict[str, float]]]:
    """Optimizer steps of each round, and phases of its training; of a step that two attempts report, the later one is part of the policy."""
    latest: dict[tuple[int, int], float] = {}
    trainings = {s.name for s in run.config.stages if s.role}
    taught: dict[int, dict[int, dict[str, float]]] = {}
    phases: dict[int, dict[str, float]] = {}
    for event in read_events(run.root / "events"):
        if event["kind"] == "phase" and event["stage"] in trainings:
            phases.setdefault(event["round"], {})[event["name"]] = event["seconds"]
        if event["kind"] == "step" and event["time"] >= latest.get((event["round"], event["step"]), 0.0):
            latest[event["round"], event["step"]] = event["time"]
            taught.setdefault(event["round"], {})[event["step"]] = {
                k: v for k, v in event.items() if k not in EVENT_KEYS
            }
    return taught, phases


def _scores(grades: Sequence[Grade]) -> dict[str, Benchmark]:
    found = {}
    for name, summary in summarise(grades).items():
        greedy = summary.counts["greedy"]
        num_greedy = sum(greedy.values())
        found[name] = Benchmark(
            metrics=summary.metrics, silent=greedy["unparsed"] / num_greedy if num_greedy else None
        )
    return found


def _compare(base: ByProblem, policy: ByProblem) -> list[Comparison]:
    """Paired by problem."""
    return [
        Comparison(
            benchmark=name,
            base=fmean(before),
            value=fmean(after),
            n=len(after),
            p=mcnemar([v == 1.0 for v in before], [v == 1.0 for v in after]),
        )
        for name, (before, after) in common(base, policy).items()
    ]


def _missing(rounds: Sequence[RoundFindings]) -> list[str]:
    """One sentence for each round that is under way, one for all that have not begun."""
    sentences = []
    for r in rounds:
        open_stages = [
            f"{s.stage} ({s.num_done} of {s.num_shards} shards)" if s.num_shards > 1 else s.stage
            for s in r.stages
            if not s.done
        ]
        if r.started and open_stages:
            sentences.append(f"round {r.round}: not done yet: {', '.join(open_stages)}")
    if untouched := [str(r.round) for r in rounds if not r.started]:
        sentences.append(f"round{'s' if len(untouched) > 1 else ''} {', '.join(untouched)}: not begun")
    return sentences
