"""What a turn samples: its questions, their answers, and how these are kept until they are trained on.

A turn's groups are a part of the training's shard: committed before they are trained on, and never sampled
again. They are a function of the weights, the seed, and where in the endless sequence of questions the turn
begins.
"""

import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.judging import Judge
from serl.config.objectives import Vine
from serl.engines.ranks import Ranks
from serl.engines.resident import Resident
from serl.engines.scorer import Scorer
from serl.engines.shares import gathered, share_of
from serl.randomness import rng_of
from serl.records import (
    GROUP_SCHEMA,
    PROPOSAL,
    ROW_GROUP,
    Group,
    Problem,
    Walk,
    groups_from_parquet,
    groups_to_parquet,
)
from serl.rewards.kinds import Earnings
from serl.rewards.spec import judges, voted
from serl.stages import branching, read
from serl.stages.answering import Asking, ask, draw, judge
from serl.stages.train.proposing import Proposing, proposed_questions
from serl.stages.train.section import Rollout
from serl.stages.train.spec import KIND
from serl.stages.work import Work, corpus_dir
from serl.text.problems import fingerprint, load_problems
from serl.text.steps import Pieces

OWN = "train"  # the role of a question that is learned from


@lru_cache(maxsize=2)
def _order(size: int, seed: int, round: int, stage: str, lap: int) -> list[int]:
    return rng_of(seed, round, stage, "questions", lap).sample(range(size), size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What a training has to ask, in its order; `labels` are the majorities that a stage before found, by
    id.
    """

    problems: Sequence[Problem]
    labels: Mapping[str, str]
    inputs: Mapping[str, str]
    seed: int
    round: int
    stage: str

    def at(self, position: int, turn: int) -> tuple[Problem, str | None]:
        """The question at a place of an endless sequence of seeded shuffles, under an id that names turn and
        place: a turn may ask one twice.
        """
        lap, place = divmod(position, len(self.problems))
        problem = self.problems[_order(len(self.problems), self.seed, self.round, self.stage, lap)[place]]
        mine = Problem(
            id=f"t{turn:04d}-{position:06d}-{problem.id}", question=problem.question, gold=problem.gold
        )
        return mine, self.labels.get(problem.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """The walks of the answers that are trained on, one after the other; their `states` different states were
    valued by `rollouts` rollouts.
    """

    walks: Sequence[Walk] = ()
    states: int = 0
    rollouts: int = 0

    @property
    def whole(self) -> int:
        """Answers in which no step was found: each is one step."""
        return sum(len(walk.cuts) == 1 for walk in self.walks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The groups of a turn, proposals among them, what was sampled from their answers on, and where the next
    turn begins; `asked` questions were needed.
    """

    groups: Sequence[Group]
    position: int
    asked: int
    sample_s: float
    vote_s: float
    branch_s: float = 0.0
    branches: Branches = Branches()

    @property
    def answered(self) -> list[Group]:
        return [g for g in self.groups if g.own]

    @property
    def proposals(self) -> list[Group]:
        return [g for g in self.groups if g.role == PROPOSAL]

    def of_proposals(self) -> dict[str, float]:
        """What was proposed, in figures; none where the questions came from elsewhere."""
        if not self.proposals:
            return {}
        rewards = [r for g in self.proposals for r in g.rewards]
        valid = [k is not None for g in self.proposals for k in g.labels]
        return {"proposal_reward": fmean(rewards), "proposals_valid": fmean(valid)}

    def encoded(self) -> bytes:
        """A line of figures, then the groups as Parquet."""
        names = ("position", "asked", "sample_s", "vote_s", "branch_s")
        told = {name: getattr(self, name) for name in names} | {"branches": asdict(self.branches)}
        return json.dumps(told).encode() + b"\n" + groups_to_parquet(self.groups)

    @classmethod
    def decoded(cls, data: bytes) -> "Sampled":
        line, _, groups = data.partition(b"\n")
        told = json.loads(line)
        branches = told.pop("branches", {})
        walks = [Walk(cuts=tuple(w["cuts"]), values=tuple(w["values"])) for w in branches.pop("walks", ())]
        return cls(groups=groups_from_parquet(groups), branches=Branches(walks=walks, **branches), **told)


def questions_of(work: Work) -> Questions:
    """From the groups of a stage before (those in the band, with their majorities), its instructions, or a
    file; of a training whose policy writes them, the seeds that it begins with.
    """
    run, stage, config = work.run, work.stage, work.run.config
    source, how = KIND.data(stage, config), stage.section.rollout
    labels: dict[str, str] = {}
    if how.proposer:
        problems = load_problems(config.seeds, data_root=run.data_root, corpus=corpus_dir(run))
        inputs = {"seeds": fingerprint(problems)}
    elif source is None:
        found = load_problems(how.problems.source, data_root=run.data_root, corpus=corpus_dir(run))
        problems = draw(found, how.problems.per_round, config.seed, work.shard.round)
        inputs = {"problems": fingerprint(found)}
    else:
        manifests = run.complete(source.round, source.name)
        inputs = {f"{source.name}/{m.shard.index:05d}": m.digest for m in manifests}
        if source.gives == "groups":
            kept, _ = read.trainable(stage, source, read.groups(run, source, completions=False))
            problems = [Problem(id=g.id, question=g.question, gold=g.gold) for g in kept]
            labels = {g.id: g.majority for g in kept if g.majority is not None}
        else:
            problems = read.problems(run, source)
    return Questions(
        problems=problems, labels=labels if how.vote == "array" else {}, inputs=inputs, seed=config.seed,
        round=work.shard.round, stage=work.shard.stage,
    )  # fmt: skip


class Sampler:
    """Samples and judges the questions of a turn, each rank its share."""

    def __init__(
        self, work: Work, ranks: Ranks, engine: Resident, questions: Questions, tensor_parallel: int
    ):
        self._how: Rollout = work.stage.section.rollout
        self._agreement = work.stage.section.agreement
        self._objective = work.stage.section.objective
        self._ranks, self._engine, self._questions = ranks, engine, questions
        self._tensor_parallel = tensor_parallel
        self._reader = Judge(work.run.config.answers, workers=work.cores, limit_s=self._how.limit_s)
        self._earnings = Earnings(self._how.reward)
        self._asking = Asking(
            seed=work.run.config.seed, round=work.shard.round, stage=work.shard.stage,
            prompts=work.run.config.prompts, sampling=self._how.sampling, samples=self._how.answers,
            earnings=self._earnings, scorers=_scorers(work, ranks),
        )  # fmt: skip
        self._pieces = Pieces(engine.tokenizer)
        self._proposing: Proposing | None = None
        if self._how.proposer:
            seeds = [p.question for p in questions.problems]
            self._proposing = Proposing(work, ranks, engine, seeds, tensor_parallel)

    def turn(self, number: int, position: int) -> Sampled:
        """Ask `prompts` questions from `position` on; with `refill`, more until as many groups lie in the
        band.
        """
        if self._proposing:
            return self._proposed(self._proposing, number, position)
        how, groups, asked = self._how, [], 0
        sample_s = vote_s = 0.0
        labels: dict[str, str] = {}
        while asked < how.most_asked:
            missing = how.prompts - len(self.in_band(groups))
            count = min(missing if how.refill else how.prompts, how.most_asked - asked)
            wave = [self._questions.at(position + asked + i, number) for i in range(count)]
            labels |= {p.id: label for p, label in wave if label is not None}
            found, seconds = self._wave([p for p, _ in wave], labels)
            groups += found
            asked += count
            sample_s, vote_s = sample_s + seconds[0], vote_s + seconds[1]
            if not how.refill or len(self.in_band(groups)) >= how.prompts:
                break
        begun = time.monotonic()
        branches = self._branches(self.in_band(groups), labels)
        return Sampled(
            groups=groups,
            position=position + asked,
            asked=asked,
            sample_s=round(sample_s, 3),
            vote_s=round(vote_s, 3),
            branch_s=round(time.monotonic() - begun, 3),
            branches=branches,
        )

    def remember(self, turns: Iterable[Sampled]) -> None:
        """The next turns' questions may be written after these turns'; all ranks call it."""
        if self._proposing and self._how.proposer.kept_shots:
            for sampled in turns:
                self._proposing.remember(g.question for g in self.in_band(sampled.answered))

    def _proposed(self, proposing: Proposing, number: int, position: int) -> Sampled:
        begun = time.monotonic()
        proposals = proposing.propose(number)
        proposed_s = max(self._ranks.gather(time.monotonic() - begun))
        asked = proposed_questions(proposals)
        groups, (sample_s, vote_s) = self._wave(asked, {})
        return Sampled(
            groups=[*groups, *proposing.paid(proposals, groups)],
            position=position + len(asked),
            asked=len(asked),
            sample_s=round(proposed_s + sample_s, 3),
            vote_s=round(vote_s, 3),
        )

    def in_band(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that are trained on, each with the answers that are: all have voted."""
        kept, _ = read.in_band(self._agreement, groups, by_vote=self._by_vote)
        return [g.first(self._how.samples) for g in kept]

    def fates(self, groups: Sequence[Group]) -> dict[str, float]:
        """How many groups are in the band, and what became of the others."""
        return dict(read.in_band(self._agreement, groups, by_vote=self._by_vote)[1])

    @property
    def _by_vote(self) -> bool:
        return self._how.vote == "fresh" and voted(self._how.reward)

    def _branches(self, kept: Sequence[Group], labels: Mapping[str, str]) -> Branches:
        """What the states of these groups' answers are worth, where the objective asks; each rank values its
        share of them.
        """
        kind, ranks = self._objective, self._ranks
        if not isinstance(kind, Vine):
            return Branches()
        tree = branching.tree_of(kept, self._pieces, kind.steps)
        own = self._own(len(tree.states))
        mine = [tree.states[i] for i in own]
        asking = replace(self._asking, samples=kind.rollouts)
        continued = branching.rollouts(self._engine, mine, asking)
        value = branching.values(mine, continued, self._pieces, self._reader, asking, labels)
        values = gathered(ranks, value, tensor_parallel=self._tensor_parallel)
        count = len(tree.states)
        return Branches(walks=tree.walks(values), states=count, rollouts=count * kind.rollouts)

    def _own(self, count: int) -> range:
        """Which of so many prompts this rank's engine continues."""
        ranks = self._ranks
        return share_of(count, rank=ranks.rank, size=ranks.size, tensor_parallel=self._tensor_parallel)

    def _wave(
        self, wave: Sequence[Problem], labels: Mapping[str, str]
    ) -> tuple[list[Group], tuple[float, float]]:
        """The groups of some questions, on every rank; and the slowest rank's seconds of sampling and of
        judging.
        """
        ranks, begun = self._ranks, time.monotonic()
        mine = [wave[i] for i in self._own(len(wave))]
        answered = ask(self._engine, [(OWN, p) for p in mine], self._asking)
        sampled = time.monotonic()
        groups = judge(answered, self._reader, self._asking, labels)
        spent = (sampled - begun, time.monotonic() - sampled)
        slowest = tuple(max(column) for column in zip(*ranks.gather(spent), strict=True))
        return gathered(ranks, groups, tensor_parallel=self._tensor_parallel), slowest

    def close(self) -> None:
        self._earnings.close()
        self._reader.close()


def _scorers(work: Work, ranks: Ranks) -> dict[str, Callable[[Sequence[Sequence[int]]], list[float]]]:
    """The reward models that judge answers, whole on every rank."""
    section = work.stage.section
    folders = {role: work.weights(role)[0] for role in judges(section.rollout.reward)}
    return {
        role: Scorer(folder, device=str(ranks.device), microbatch_tokens=section.microbatch_tokens).score
        for role, folder in folders.items()
    }


def folded(parts: Sequence[bytes]) -> bytes:
    """The groups of all turns as one file."""
    tables = [pq.read_table(io.BytesIO(part.partition(b"\n")[2])) for part in parts]
    sink, whole = io.BytesIO(), pa.concat_tables(tables) if tables else GROUP_SCHEMA.empty_table()
    pq.write_table(whole, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue()
