"""Everything that a report says of a run, computed from its manifests, groups, grades and events; nothing is
drawn or written here.

A run may be at any point: what is not done, or cannot be read, is a sentence in `missing`, and the rest is
found all the same. Rounds are read one after another and only figures and a few examples are kept, so memory
holds one stage of one round.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from evaluation.compare import ByProblem, by_problem
from evaluation.summary import Summary, summarise
from jobs.reporting import harvest, hygiene, policies
from jobs.reporting.harvest import Votes
from jobs.reporting.hygiene import Hygiene
from jobs.reporting.policies import Pair
from serl.records import Group
from serl.run.events import read_events
from serl.run.rundir import Run, RunError
from serl.safety.checkup import checked_rounds, read_checkup
from serl.safety.vitals import Vitals, examine, take_vitals
from serl.stages import exams
from serl.stages.kind import POLICY, Stage
from serl.stages.read import problems, round_groups
from serl.stages.show import Passage, show_of
from serl.stages.work import corpus_dir

T = TypeVar("T")
Course = Mapping[int, Mapping[str, float]]  # by step or turn, what was told of it

KNOWN = {"documents", "candidates", "problems", "groups", "grades", "weights"}  # what other tables tell of
EVENT_KEYS = {"time", "kind", "stage", "round", "shard", "step", "turn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFindings:
    """How far a stage of a round is; `longest_s` is its slowest shard, `total_s` all shards together;
    `counts` are those of all manifests, and `figures` what its kind makes of them, once it is done.
    """

    of: Stage
    num_done: int
    num_shards: int
    longest_s: float
    total_s: float
    ended: float
    counts: Mapping[str, float]
    figures: Mapping[str, float]
    steps: Course
    turns: Course
    seconds: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.of.name

    @property
    def done(self) -> bool:
        return self.num_done == self.num_shards

    @property
    def prefix(self) -> str:
        """Before figures of a training of another role than the policy."""
        return f"{self.name}/" if self.of.role not in (None, POLICY) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """A policy that was published within a round: after which turn, how many answers the round had trained it
    on, and its scores, those to choose by among them.
    """

    turn: int
    answers: int
    scores: Mapping[str, Summary]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The best policy on validation: its round, its turn where it was published within that (else 0), and
    its scores on what it was chosen by.
    """

    round: int
    turn: int
    scores: Mapping[str, Summary]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFindings:
    """What is known of one round; an empty part is one that is not done. `validation` are scores to choose
    by, apart from those that are reported.
    """

    round: int
    stages: tuple[StageFindings, ...]
    funnel: tuple[Passage, ...]
    votes: Votes | None
    vitals: Vitals | None
    scores: Mapping[str, Summary]
    validation: Mapping[str, Summary]
    comparisons: tuple[Pair, ...]
    milestones: tuple[Milestone, ...] = ()

    def done(self, gives: str) -> bool:
        """Whether its first stage that gives such records is done."""
        return next((s.done for s in self.of_round if s.of.kind.gives == gives), False)

    @property
    def of_round(self) -> list[StageFindings]:
        """Without what has to do with a milestone, beside the round's training."""
        return [s for s in self.stages if not s.of.milestone]

    def scored_along(self, training: StageFindings, turn: int) -> dict[str, float]:
        """The scores of what the policy's training published after a turn."""
        return {
            f"score/{name}/{metric}": score.value
            for m in self.milestones
            if m.turn == turn and not training.prefix
            for name, found in m.scores.items()
            for metric, score in found.metrics.items()
        }

    @property
    def trainings(self) -> list[StageFindings]:
        """Stages that move weights."""
        return [s for s in self.stages if s.of.role and (s.counts or s.steps or s.turns)]

    @property
    def figures(self) -> dict[str, float]:
        """Of all stages; of two with figures of one name the later one's have the stage in front."""
        found: dict[str, float] = {}
        for s in self.of_round:
            told = {s.prefix + k: v for k, v in s.figures.items()}
            found |= {(f"{s.name}/{k}" if k in found else k): v for k, v in told.items()}
        return found

    @property
    def seconds(self) -> float:
        """The slowest shard of each stage, added up: the round's duration if shards run side by side."""
        return sum(s.longest_s for s in self.of_round)

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
    def lines(self) -> list[dict]:
        """For tables: each benchmark's scores by round, and how they compare with the base's."""
        scores = {r.round: {**r.scores, **r.validation} for r in self.rounds}
        names = dict.fromkeys(name for found in scores.values() for name in found)
        pairs = {(r.round, p.benchmark): p for r in self.rounds for p in r.comparisons}
        _, apart = exams.asked(self.run.config)
        return [
            {"benchmark": name, "round": round, "apart": name in apart, "pair": pairs.get((round, name))}
            | {"n": policies.main_score(found[name]).n, "silent": policies.silent(found[name])}
            | found[name].metrics
            for name in names
            for round, found in scores.items()
            if name in found
        ]

    @property
    def examined(self) -> bool:
        return any(s.of.kind.gives == exams.GIVES for r in self.rounds for s in r.stages)

    @property
    def warnings(self) -> list[str]:
        """What safety's rules say of votes that no training has looked at yet."""
        taken = [r.vitals for r in self.rounds if r.vitals and r.round in checked_rounds(self.run.config)]
        return [
            f"round {now.round}, at which no training has looked yet: {alarm.sentence}"
            for i, now in enumerate(taken)
            if read_checkup(self.run, now.round) is None
            for alarm in examine(now, taken[:i], self.run.config.safety)
        ]

    @property
    def other(self) -> list[dict]:
        """Counts of stages that no other table tells of."""
        stages = [s for s in self.stages if s.of.kind.gives not in KNOWN]
        told = [(s, name, n) for s in stages for name, n in s.figures.items()]
        return [{"round": s.of.round, "stage": s.name, "count": name, "value": n} for s, name, n in told]

    @property
    def turns(self) -> list[dict]:
        """Every turn with its figures; `at` counts those of a stage through all rounds."""
        found, before = [], Counter[str]()
        for r in self.rounds:
            for s in r.trainings:
                own = {"round": r.round, "stage": s.name}
                for n, told in s.turns.items():
                    figures = {**told, **r.scored_along(s, n)}
                    found.append(own | {"turn": n, "at": before[s.name] + n, "figures": figures})
                before[s.name] += max(s.turns, default=0)
        return found

    @property
    def stages(self) -> list[StageFindings]:
        return [s for r in self.rounds for s in r.stages]

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(name for r in self.rounds for name in r.scores))

    @property
    def chosen(self) -> Chosen | None:
        """The policy that solves most of the validation problems, the mean over its sets."""
        _, apart = exams.asked(self.run.config)
        found: dict[tuple[int, int], Mapping[str, Summary]] = {}
        for r in self.rounds:
            for m in r.milestones:
                found[r.round, m.turn] = {n: s for n, s in m.scores.items() if n in apart}
            found[r.round, 0] = r.validation
        means = {at: {n: policies.main_score(b).value for n, b in s.items()} for at, s in found.items()}
        best = policies.best(means, list(dict.fromkeys(n for s in means.values() for n in s)))
        return None if best is None else Chosen(round=best[0], turn=best[1], scores=found[best])


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
    overlap = _overlap(read, rounds)
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
    solved, scores = by_problem([g for g in grades if g.mode == "greedy"]), summarise(grades)
    _, apart = exams.asked(run.config)
    named = [name for name in scores if name not in apart]
    found = RoundFindings(
        round=number,
        stages=stages,
        funnel=tuple(_funnel(stages, answering, votes)),
        votes=votes,
        vitals=_vitals(number, stages, answering, groups, votes) if votes else None,
        scores={name: scores[name] for name in named},
        validation={name: s for name, s in scores.items() if name in apart},
        comparisons=tuple(policies.versus_base(base, solved, named)) if number else (),
        milestones=tuple(_milestones(read, number)),
    )
    return base if number else solved, found


def _milestones(read: _Reader, number: int) -> Iterator[Milestone]:
    """The policies that were published within a round and are scored."""
    run = read.run
    for turn in [milestone for round, milestone in read([], exams.scored, run) if round == number]:
        for exam in exams.exams(run.config, number, turn)[:1] if turn else ():
            (published,) = (s for s in exam.kind.reads(exam, run.config) if s.milestone)
            (manifest,) = run.complete(number, published.name)
            scores = summarise(read([], exams.round_grades, run, number, turn))
            yield Milestone(turn=turn, answers=int(manifest.counts["samples"]), scores=scores)


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


def _overlap(read: _Reader, rounds: Sequence[RoundFindings]) -> Hygiene:
    """What the questions that the run learns from share with the benchmarks it is scored on."""
    run, config = read.run, read.run.config
    chosen = [config.giving(r.round, "problems") for r in rounds if r.done("problems")]
    asked = [p.question for stage in chosen for p in read([], problems, run, stage)]
    sources = {"seeds": config.seeds} if config.seeds else {}
    for stage in config.stages:
        sources |= show_of(stage.kind).sources(stage.section)
    return hygiene.measure(run, corpus_dir(run), sources, {"instructions": asked} if asked else {})


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
