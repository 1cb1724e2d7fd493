"""What a report says of a run, as plain data: what it has come to round by round, and what follows from
that.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.scores import Score
from evaluation.summary import Summary
from jobs.reporting.harvest import Votes
from jobs.reporting.policies import Pair, best, main_score, silent
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
class Policy:
    """A policy and its scores, those to choose by among them. `turn` is 0 where it is its round's last, else
    it was published after that turn; it has learned in `turns` and from `answers` in all rounds until then.
    """

    round: int
    turn: int = 0
    turns: int
    answers: int
    scores: Mapping[str, Summary]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFindings:
    """What is known of one round; an empty part is one that is not done. `validation` are scores to choose
    by, apart from those that are reported. `milestones` were published within it; their turns and answers are
    the round's own.
    """

    round: int
    stages: tuple[StageFindings, ...]
    funnel: tuple[Passage, ...]
    votes: Votes | None
    vitals: Vitals | None
    scores: Mapping[str, Summary]
    validation: Mapping[str, Summary]
    comparisons: tuple[Pair, ...]
    milestones: tuple[Policy, ...]

    @property
    def of_round(self) -> list[StageFindings]:
        """Without what has to do with a milestone, beside the round's training."""
        return [s for s in self.stages if not s.of.milestone]

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
    """A run, as far as it is; `questions` are the files of those that its rounds chose to learn from."""

    run: Run
    rounds: tuple[RoundFindings, ...]
    missing: tuple[str, ...]
    questions: tuple[Path, ...]

    @property
    def stages(self) -> list[StageFindings]:
        return [s for r in self.rounds for s in r.stages]

    @property
    def lines(self) -> list[dict]:
        """For tables: each benchmark's scores by round, and how they compare with the base's."""
        pairs = {(r.round, p.benchmark): p for r in self.rounds for p in r.comparisons}
        names = dict.fromkeys(name for r in self.rounds for name in (*r.scores, *r.validation))
        return [
            {"benchmark": name, "round": r.round, "apart": name in r.validation}
            | {"pair": pairs.get((r.round, name)), "n": main_score(s).n, "silent": silent(s)}
            | s.metrics
            for name in names
            for r in self.rounds
            if (s := r.scores.get(name) or r.validation.get(name))
        ]

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
        """Every turn with its figures, and the scores of what the policy's training published after it; `at`
        counts those of a stage through all rounds.
        """
        found, before = [], Counter[str]()
        for r in self.rounds:
            for s in r.trainings:
                published = {} if s.prefix else {m.turn: m.scores for m in r.milestones}
                for n, told in s.turns.items():
                    own = {"round": r.round, "stage": s.name, "turn": n, "at": before[s.name] + n}
                    scores = {
                        f"score/{name}/{metric}": score.value
                        for name, summary in published.get(n, {}).items()
                        for metric, score in summary.metrics.items()
                    }
                    found.append(own | {"figures": {**told, **scores}})
                before[s.name] += max(s.turns, default=0)
        return found

    @property
    def policies(self) -> list[Policy]:
        """In the order in which they came."""
        found, turns, answers = [], 0, 0
        for r in self.rounds:
            found += [replace(m, turns=turns + m.turns, answers=answers + m.answers) for m in r.milestones]
            training = self.run.config.training(r.round) if r.round else None
            counts = next((s.counts for s in r.stages if s.of == training), {})
            turns += int(counts.get("turns", 0))
            answers += int(counts.get("samples", 0))
            scores = {**r.scores, **r.validation}
            found.append(Policy(round=r.round, turns=turns, answers=answers, scores=scores))
        return found

    @property
    def along(self) -> list[tuple[Policy, str, Score]]:
        """The learning curve within rounds: every policy on what those that were published along the way were
        asked; empty where none was.
        """
        asked = {name for p in self.policies if p.turn for name in p.scores}
        told = [(p, name, s) for p in self.policies for name, s in p.scores.items() if name in asked]
        return [(p, name, main_score(s)) for p, name, s in told]

    @property
    def chosen(self) -> Policy | None:
        """The policy that solves most of the validation problems, with its scores on those."""
        _, apart = exams.asked(self.run.config)
        found = [
            replace(p, scores={name: s for name, s in p.scores.items() if name in apart})
            for p in self.policies
        ]
        means = {i: {name: main_score(s).value for name, s in p.scores.items()} for i, p in enumerate(found)}
        chosen = best(means, apart)
        return None if chosen is None else found[chosen]
