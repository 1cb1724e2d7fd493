"""What a report says of a run, as plain data: what it has come to round by round, and what follows from
that.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.summary import Summary
from jobs.reporting import policies
from jobs.reporting.harvest import Votes
from jobs.reporting.hygiene import Hygiene
from jobs.reporting.policies import Pair
from serl.run.rundir import Run
from serl.safety.checkup import checked_rounds, read_checkup
from serl.safety.vitals import Vitals, examine
from serl.stages import exams
from serl.stages.kind import POLICY, Stage
from serl.stages.show import Passage

Course = Mapping[int, Mapping[str, float]]  # by step or turn, what was told of it

KNOWN = {"documents", "candidates", "problems", "groups", "grades", "weights"}  # what other tables tell of


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
