"""From a run to what a report says of it: manifests, groups, grades and events are read, and nothing is drawn
or written.

A run may be at any point: what is not done, or cannot be read, is a sentence in `missing`, and the rest is
found all the same. Rounds are read one after another and only figures are kept, so memory holds one stage of
one round.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from evaluation.compare import ByProblem, by_problem
from evaluation.summary import summarise
from jobs.reporting import harvest
from jobs.reporting.found import Course, Findings, Policy, RoundFindings, StageFindings
from jobs.reporting.harvest import Votes
from jobs.reporting.policies import compared
from jobs.runs.progress import summed
from serl.run.events import read_events
from serl.run.rundir import Run, RunError
from serl.safety.vitals import take_vitals
from serl.stages import exams
from serl.stages.kind import Stage
from serl.stages.read import round_groups
from serl.stages.show import Passage, show_of

T = TypeVar("T")
Courses = Mapping[tuple[int, str, str], Course]  # by round, stage and kind of event

COUNTED = {"step": "step", "turn": "turn", "phase": "name"}  # kinds of events, and what tells them apart
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


def gather(run: Run) -> Findings:
    """Read a run once, from first round to last."""
    read, courses = _Reader(run), _courses(run)
    rounds: list[RoundFindings] = []
    base: ByProblem = {}
    for number in dict.fromkeys(s.round for s in run.config.stages):
        stages = tuple(_stage(read, stage, courses) for stage in run.config.at(number))
        base, found = _round(read, number, stages, base)
        rounds.append(found)
    giving = [s for s in run.config.stages if s.kind.gives == "problems"]
    found = [
        m for s in giving for shard in run.shards(s.round, s.name) if (m := read(None, run.manifest, shard))
    ]
    questions = tuple(run.path(m, m.files[0]) for m in found if m.files)
    missing = tuple(dict.fromkeys((*_missing(rounds), *read.troubles)))
    return Findings(run=run, rounds=tuple(rounds), missing=missing, questions=questions)


def _courses(run: Run) -> Courses:
    """What events say, in numbers. Of a step or turn that two attempts report, the later one is part of the
    policy.
    """
    found: dict[tuple, dict] = {}
    latest: dict[tuple, float] = {}
    for event in read_events(run.root / "events"):
        if key := COUNTED.get(event["kind"]):
            course, n = (event["round"], event["stage"], event["kind"]), event[key]
            if event["time"] >= latest.get((course, n), 0.0):
                latest[course, n] = event["time"]
                told = ((k, v) for k, v in event.items() if k not in EVENT_KEYS)
                found.setdefault(course, {})[n] = {k: v for k, v in told if isinstance(v, int | float)}
    return {course: dict(sorted(told.items())) for course, told in found.items()}


def _stage(read: _Reader, stage: Stage, courses: Courses) -> StageFindings:
    shards = read.run.shards(stage.round, stage.name)
    found = [m for s in shards if (m := read(None, read.run.manifest, s))]
    counts = summed([m for m in found if not m.over])
    done = len(found) == len(shards)
    steps, turns, phases = (courses.get((stage.round, stage.name, kind), {}) for kind in COUNTED)
    return StageFindings(
        of=stage,
        num_done=len(found),
        num_shards=len(shards),
        longest_s=max((m.seconds for m in found), default=0.0),
        total_s=sum(m.seconds for m in found),
        ended=max((m.created for m in found), default=0.0),
        counts=counts,
        figures=show_of(stage.kind).figures(stage, counts) if done else {},
        steps=steps,
        turns=turns,
        seconds={name: told["seconds"] for name, told in phases.items()} if stage.role else {},
    )


def _round(
    read: _Reader, number: int, stages: tuple[StageFindings, ...], base: ByProblem
) -> tuple[ByProblem, RoundFindings]:
    """With the base model's answers, which round 0 finds and later rounds are compared with."""
    config, done = read.run.config, [s.of for s in stages if s.done]
    answering = config.judged(number) or config.giving(number, "groups")
    reading = partial(round_groups, read.run, number, completions=False)
    groups = read([], reading) if answering in done else []
    votes = harvest.votes(config, number, groups) if groups else None
    asked = next((s.counts for s in stages if s.of == answering), {})
    chosen = next((s.counts for s in stages if s.of.kind.gives == "problems"), None)
    kept = votes.fates["kept"] if votes else 0
    graded = [s for s in exams.exams(config, number) if s in done]
    grades = [row for s in graded for row in read([], exams.grades, read.run, s)]
    solved, scores = by_problem(grades), summarise(grades)
    _, apart = exams.asked(config)
    named = [name for name in scores if name not in apart]
    both = {"the base model": {"": base}, f"round {number}": {"": solved}}
    found = RoundFindings(
        round=number,
        stages=stages,
        funnel=tuple(_funnel(stages, answering, votes)),
        votes=votes,
        vitals=take_vitals(number, groups, kept, asked, chosen) if votes else None,
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


def _funnel(stages: Sequence[StageFindings], answering: Stage | None, votes: Votes | None) -> list[Passage]:
    """The passages of the stages that are done, in their order; of stages of one kind those of one."""
    passages: list[Passage] = []
    seen = set()
    for s in stages:
        kind, mine = s.of.kind, s.of == answering and votes is not None
        if s.done and kind.name not in seen and (mine or kind.gives != "groups"):
            seen.add(kind.name)
            before = passages[-1].count if passages else None
            passages += show_of(kind).passages(s.of, s.counts, before, votes.fates if mine else {})
    return passages


def _missing(rounds: Sequence[RoundFindings]) -> Iterator[str]:
    """One sentence for each round that is under way, one for all that have not begun."""
    for r in (r for r in rounds if r.started):
        if left := [s for s in r.stages if not s.done]:
            shards = (f" ({s.num_done} of {s.num_shards} shards)" if s.num_shards > 1 else "" for s in left)
            told = ", ".join(s.name + how for s, how in zip(left, shards))
            yield f"round {r.round}: not done yet: {told}"
    if untouched := [str(r.round) for r in rounds if not r.started]:
        yield f"round{'s' if len(untouched) > 1 else ''} {', '.join(untouched)}: not begun"
