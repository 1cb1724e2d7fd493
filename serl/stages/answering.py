"""The one way to answer questions: sampled, voted on, and rewarded. For arrays of shards and for turns alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.answers import extract
from evaluation.verifier import Verifier
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
    """How questions are asked and what answers earn; `seed`, `round` and `stage` are what all chance is a function of."""

    seed: int
    round: int
    stage: str
    prompts: Prompts
    sampling: Sampling
    samples: int
    earnings: Earnings


def answer(
    engine: Generator, verifier: Verifier, tasks: Sequence[tuple[str, Problem]], asking: Asking
) -> list[Group]:
    """A group for each (role, problem) whose prompt leaves room for an answer."""
    encoded = [(role, p, question_prompt(engine.tokenizer, asking.prompts, p.question)) for role, p in tasks]
    room = engine.max_model_len - asking.sampling.max_tokens
    fitting = [(role, p, ids) for role, p, ids in encoded if len(ids) <= room]
    outputs = engine.generate(
        [ids for _, _, ids in fitting],
        asking.sampling,
        num_samples=asking.samples,
        seeds=[seed_of(asking.seed, asking.round, asking.stage, p.id) for _, p, _ in fitting],
    )
    return judge([(role, p, ids, out) for (role, p, ids), out in zip(fitting, outputs)], verifier, asking)


def judge(answered: Sequence[Answered], verifier: Verifier, asking: Asking) -> list[Group]:
    """Extract, vote and reward. A truncated completion gives no answer: it has not finished speaking."""
    answers = [
        [extract(c.text) if c.finish_reason == "stop" else None for c in out] for _, _, _, out in answered
    ]
    classes = verifier.classes_many(answers)
    known = [(i, p.gold) for i, (_, p, _, _) in enumerate(answered) if p.gold is not None]
    verdicts = iter(verifier.judge([(gold, a) for i, gold in known for a in answers[i]]))
    correct = {i: [_truth(next(verdicts)) for _ in answers[i]] for i, _ in known}
    groups = []
    for i, (role, p, ids, out) in enumerate(answered):
        labels = classes[i].labels
        result = vote(labels)
        truth = correct.get(i, [None] * len(out))
        right = None if p.gold is None or result.winner is None else truth[labels.index(result.winner)]
        case = Case(
            labels=labels, winner=result.winner, correct=truth, question=p.question, answers=answers[i],
            texts=[c.text for c in out], gold=p.gold, rng=rng_of(asking.seed, asking.round, "reward", p.id),
        )  # fmt: skip
        groups.append(
            Group(
                id=p.id, role=role, question=p.question, gold=p.gold, prompt_ids=tuple(ids), completions=out,
                answers=tuple(answers[i]), labels=labels, winner=result.winner, tie=result.tie,
                undecided=classes[i].num_undecided, agreement=result.agreement, margin=result.margin,
                winner_correct=right,
                rewards=asking.earnings(case),
            )
        )  # fmt: skip
    return groups


def _truth(verdict: str) -> bool | None:
    return {"correct": True, "wrong": False}.get(verdict)
