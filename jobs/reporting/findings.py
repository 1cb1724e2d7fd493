"""From a run to what a report says of it: manifests, groups, grades and events are read, and nothing is drawn
or written.

A run may be at any point: what is not done, or cannot be read, is a sentence in `missing`, and the rest is
found all the same. Rounds are read one after another and only figures and a few examples are kept, so memory
holds one stage of one round.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from evaluation.compare import ByProblem, by_problem
from evaluation.summary import summarise
from jobs.reporting import harvest, hygiene
from jobs.reporting.found import Course, Findings, Policy, RoundFindings, StageFindings
from jobs.reporting.harvest import Votes
from jobs.reporting.policies import compared
from serl.records import Group
from serl.run.events import read_events
from serl.run.rundir import Run, RunError
from serl.safety.vitals import Vitals, take_vitals
from serl.stages import exams
from serl.stages.kind import Stage
from serl.stages.read import problems, round_groups
from serl.stages.show import Passage, show_of

T = TypeVar("T")

EVENT_KEYS = {"time", "kind", "stage", "round", "shard", "step", "turn"}


class _Reader:
    """Reads stages of a run; what is damaged becomes a sentence instead of the end of the report."""

    def __init__(self, run: Run):
        self.run, self.troubles = run, list[str]()

    def __call__(self, otherwise: T, read: Callable[..., T], *arguments: object) -> T:
        try:
            return read(*arguments)
        except RunError as e:
            self.troubles.append(str(e))
            return otherwise


class _Told:
    """What events say of trainings, by (round, stage). Of a step or turn that two attempts report, the later
    one is part of the policy.
    """

    def __init__(self, run: Run):
        self.courses: dict[tuple, dict[int, dict[str, float]]] = {}
        self.seconds: dict[tuple, dict[str, float]] = {}
        latest: dict[tuple, float] = {}
        for event in read_events(run.root / "events"):
            kind, where = event["kind"], (event["round"], event["stage"])
            if kind == "phase":
                self.seconds.setdefault(where, {})[event["name"]] = event["seconds"]
            elif kind in ("step", "turn"):
                at = (*where, kind, event[kind])
                if event["time"] >= latest.get(at, 0.0):
                    latest[at] = event["time"]
                    told = ((k, v) for k, v in event.items() if k not in EVENT_KEYS)
                    numbers = {k: v for k, v in told if isinstance(v, int | float)}
                    self.courses.setdefault((*where, kind), {})[event[kind]] = numbers

    def course(self, stage: Stage, kind: str) -> Course:
        return dict(sorted(self.courses.get((stage.round, stage.name, kind), {}).items()))


def gather(run: Run) -> Findings:
    """Read a run once, from first round to last."""
    read, told = _Reader(run), _Told(run)
    rounds: list[RoundFindings] = []
    base: ByProblem = {}
    for number in dict.fromkeys(s.round for s in run.config.stages):
        stages = tuple(_stage(read, stage, told) for stage in run.config.at(number))
        base, found = _round(read, number, stages, base)
        rounds.append(found)
    chosen = [run.config.giving(r.round, "problems") for r in rounds if r.done("problems")]
    overlap = hygiene.measure(run, [p.question for s in chosen for p in read([], problems, run, s)])
    missing = (*_missing(rounds), *read.troubles)
    return Findings(run=run, rounds=tuple(rounds), missing=missing, overlap=overlap)


def _round(
    read: _Reader, number: int, stages: tuple[StageFindings, ...], base: ByProblem
) -> tuple[ByProblem, RoundFindings]:
    """With the base model's answers, which round 0 finds and later rounds are compared with."""
    run, done = read.run, [s.of for s in stages if s.done]
    answering = run.config.judged(number) or run.config.giving(number, "groups")
    groups = read([], _groups, run, number) if answering in done else []
    votes = harvest.votes(run.config, number, groups) if groups else None
    graded = [s for s in exams.exams(run.config, number) if s in done]
    grades = [row for s in graded for row in read([], exams.grades, run, s)]
    solved, scores = by_problem(grades), summarise(grades)
    _, apart = exams.asked(run.config)
    named = [name for name in scores if name not in apart]
    both = {"the base model": {"": base}, f"round {number}": {"": solved}}
    found = RoundFindings(
        round=number,
        stages=stages,
        funnel=tuple(_funnel(stages, answering, votes)),
        votes=votes,
        vitals=_vitals(number, stages, answering, groups, votes) if votes else None,
        scores={name: scores[name] for name in named},
        validation={name: s for name, s in scores.items() if name in apart},
        comparisons=compared(both, named) if number else (),
        milestones=tuple(_milestones(read, number)),
    )
    return base if number else solved, found


def _milestones(read: _Reader, number: int) -> Iterator[Policy]:
    """The policies that were published within a round and are scored."""
    run = read.run
    for turn in [milestone for round, milestone in read([], exams.scored, run) if round == number]:
        for exam in exams.exams(run.config, number, turn)[:1] if turn else ():
            (published,) = (s for s in exam.kind.reads(exam, run.config) if s.milestone)
            (manifest,) = run.complete(number, published.name)
            scores = summarise(read([], exams.round_grades, run, number, turn))
            answers = int(manifest.counts["samples"])
            yield Policy(round=number, turn=turn, turns=turn, answers=answers, scores=scores)


def _groups(run: Run, round: int) -> list[Group]:
    return round_groups(run, round, completions=False)


def _vitals(
    number: int,
    stages: Sequence[StageFindings],
    answering: Stage | None,
    groups: Sequence[Group],
    votes: Votes,
) -> Vitals:
    """The round as safety sees it."""
    asked = next(s.counts for s in stages if s.of == answering)
    chosen = next((s.counts for s in stages if s.of.kind.gives == "problems"), None)
    return take_vitals(number, groups, votes.fates["kept"], asked, chosen)


def _stage(read: _Reader, stage: Stage, told: _Told) -> StageFindings:
    shards = read.run.shards(stage.round, stage.name)
    found = [m for s in shards if (m := read(None, read.run.manifest, s))]
    counts: Counter[str] = Counter()
    for m in found:
        counts.update({} if m.over else m.counts)
    done = len(found) == len(shards)
    return StageFindings(
        of=stage,
        num_done=len(found),
        num_shards=len(shards),
        longest_s=max((m.seconds for m in found), default=0.0),
        total_s=sum(m.seconds for m in found),
        ended=max((m.created for m in found), default=0.0),
        counts=counts,
        figures=show_of(stage.kind).figures(stage, counts) if done else {},
        steps=told.course(stage, "step"),
        turns=told.course(stage, "turn"),
        seconds=told.seconds.get((stage.round, stage.name), {}) if stage.role else {},
    )


def _funnel(stages: Sequence[StageFindings], answering: Stage | None, votes: Votes | None) -> list[Passage]:
    """The passages of the stages that are done, in their order; of stages of one kind those of one."""
    passages: list[Passage] = []
    seen = set()
    for s in stages:
        kind = s.of.kind
        if kind.gives == "groups" and (s.of != answering or votes is None):
            continue
        if s.done and kind.name not in seen:
            seen.add(kind.name)
            before = passages[-1].count if passages else None
            fates = votes.fates if votes and s.of == answering else {}
            passages += show_of(kind).passages(s.of, s.counts, before, fates)
    return passages


def _missing(rounds: Sequence[RoundFindings]) -> list[str]:
    """One sentence for each round that is under way, one for all that have not begun."""
    sentences = []
    for r in rounds:
        left = [
            f"{s.name} ({s.num_done} of {s.num_shards} shards)" if s.num_shards > 1 else s.name
            for s in r.stages
            if not s.done
        ]
        if r.started and left:
            sentences.append(f"round {r.round}: not done yet: {', '.join(left)}")
    if untouched := [str(r.round) for r in rounds if not r.started]:
        sentences.append(f"round{'s' if len(untouched) > 1 else ''} {', '.join(untouched)}: not begun")
    return sentences
