"""The one way to answer questions: sampled, voted on, and rewarded. For arrays of shards and for turns
alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from evaluation.domain import Answers
from evaluation.judging import Judge
from evaluation.thinking import thought_counts
from serl.config.engine import Prompts, Sampling
from serl.engines.generator import Generator
from serl.randomness import rng_of, seed_of
from serl.records import Completion, Group, Problem
from serl.rewards.kinds import Case, Earnings
from serl.rewards.vote import vote
from serl.text.prompts import question_prompt

Answered = tuple[str, Problem, list[int], tuple[Completion, ...]]  # role, problem, prompt, its completions


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How questions are asked and what answers earn; `seed`, `round` and `stage` are what all chance is a
    function of, `scorers` the reward models by role.
    """

    seed: int
    round: int
    stage: str
    prompts: Prompts
    sampling: Sampling
    samples: int
    earnings: Earnings
    scorers: Mapping[str, Callable[[Sequence[Sequence[int]]], list[float]]] = field(default_factory=dict)


def answer(
    engine: Generator, reader: Judge, tasks: Sequence[tuple[str, Problem]], asking: Asking
) -> list[Group]:
    """A group for each (role, problem) whose prompt leaves room for an answer."""
    return judge(ask(engine, tasks, asking), reader, asking)


def ask(engine: Generator, tasks: Sequence[tuple[str, Problem]], asking: Asking) -> list[Answered]:
    """The completions, not yet read."""
    encoded = [(role, p, question_prompt(engine.tokenizer, asking.prompts, p.question)) for role, p in tasks]
    room = engine.max_model_len - asking.sampling.max_tokens
    fitting = [(role, p, ids) for role, p, ids in encoded if len(ids) <= room]
    outputs = engine.generate(
        [ids for _, _, ids in fitting],
        asking.sampling,
        num_samples=asking.samples,
        seeds=[seed_of(asking.seed, asking.round, asking.stage, p.id) for _, p, _ in fitting],
    )
    return [(role, p, ids, out) for (role, p, ids), out in zip(fitting, outputs)]


def judge(
    answered: Sequence[Answered],
    reader: Judge,
    asking: Asking,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> list[Group]:
    """Extract, vote and reward. A truncated completion gives no answer: it has not finished speaking.

    Where `labels` has the id of a problem, an answer earns 1 if it equals that text, whatever the vote and
    the reward say.
    """
    answers = [[said(reader, p.question, c.text, c) for c in out] for _, p, _, out in answered]
    classes = reader.classes_many(answers)
    golds = [None if p.gold is None else reader.gold(p.question, p.gold) for _, p, _, _ in answered]
    correct = verdicts(reader, answers, dict(enumerate(golds)))
    agreed = verdicts(reader, answers, {i: labels.get(p.id) for i, (_, p, _, _) in enumerate(answered)})
    sequences = [[[*ids, *c.token_ids] for c in out] for _, _, ids, out in answered]
    scores = {name: scores_of(ask, sequences) for name, ask in asking.scorers.items()}
    groups = []
    for i, (role, p, ids, out) in enumerate(answered):
        labels = classes[i].labels
        result = vote(labels)
        truth = correct.get(i, [None] * len(out))
        right = None if p.gold is None or result.winner is None else truth[labels.index(result.winner)]
        case = Case(
            labels=labels, winner=result.winner, correct=truth, question=p.question, answers=answers[i],
            texts=[c.text for c in out], gold=p.gold, surprise=[_surprise(c) for c in out],
            rng=rng_of(asking.seed, asking.round, "reward", p.id),
            scores={name: found[i] for name, found in scores.items()},
        )  # fmt: skip
        groups.append(
            Group(
                id=p.id, role=role, question=p.question, gold=p.gold, prompt_ids=tuple(ids), completions=out,
                answers=tuple(answers[i]), labels=labels, winner=result.winner, tie=result.tie,
                undecided=classes[i].num_undecided, agreement=result.agreement, margin=result.margin,
                winner_correct=right,
                rewards=tuple(float(bool(t)) for t in agreed[i]) if i in agreed else asking.earnings(case),
            )
        )  # fmt: skip
    return groups


def said(reader: Judge, question: str, text: str, completion: Completion) -> str | None:
    """What a text that a completion ends says: nothing where that was cut off."""
    found = reader.read(question, text) if completion.finish_reason == "stop" else None
    return found and found.text


def scores_of(
    ask: Callable[[Sequence[Sequence[int]]], list[float]], sequences: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """What a reward model says of all answers to each question, prompts included."""
    found = iter(ask([ids for several in sequences for ids in several]))
    return [[next(found) for _ in several] for several in sequences]


def graded(reader: Judge, groups: Sequence[Group]) -> dict[int, list[bool | None]]:
    """Of each stored group with a gold answer, whether each of its answers equals it."""
    golds = [None if g.gold is None else reader.gold(g.question, g.gold) for g in groups]
    return verdicts(reader, [g.answers for g in groups], dict(enumerate(golds)))


def verdicts(
    reader: Judge, answers: Sequence[Sequence[str | None]], truths: Mapping[int, str | None]
) -> dict[int, list[bool | None]]:
    """Of each question with a known answer, whether each given one equals it; None where that could not be
    told.
    """
    known = {i: truth for i, truth in truths.items() if truth is not None}
    found = iter(reader.judge([(truth, a) for i, truth in known.items() for a in answers[i]]))
    return {i: [_truth(next(found)) for _ in answers[i]] for i in known}


def thoughts_of(groups: Sequence[Group], answers: Answers) -> dict[str, float]:
    """What of the answers is thought, counted apart; nothing where nobody thinks."""
    said = ((c.text, len(c.token_ids)) for g in groups for c in g.completions)
    return thought_counts(said, answers.thinking)


def draw(source: list[Problem], per_round: int, seed: int, round: int) -> list[Problem]:
    """The round's stretch of an endless sequence of seeded shuffles: every problem is used once before any is
    used twice.
    """
    start = (round - 1) * per_round
    chosen = []
    for position in range(start, start + per_round):
        lap, place = divmod(position, len(source))
        if place == 0 or not chosen:
            order = rng_of(seed, "problems", lap).sample(range(len(source)), len(source))
        problem = source[order[place]]
        chosen.append(
            Problem(id=f"r{round:03d}-{position - start:06d}", question=problem.question, gold=problem.gold)
        )
    return chosen


def _surprise(c: Completion) -> float:
    return -sum(c.logprobs) / max(1, len(c.logprobs))


def _truth(verdict: str) -> bool | None:
    return {"correct": True, "wrong": False}.get(verdict)
