"""What an answer earns: a closed union over the reward kinds of the configuration."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, assert_never

from evaluation.words import token_f1
from serl.config.rewards import ClassShare, Scrl
from serl.rewards.agreement import class_shares, scrl_rewards
from serl.rewards.outside import Outside
from serl.rewards.preferred import model_rewards
from serl.rewards.spec import (
    Majority,
    ModelReward,
    PythonReward,
    RandomReward,
    Reward,
    SumReward,
    TokenF1,
    Verified,
    parts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question and its N answers. `answers[i]` is what was read of text i (None: nothing), `labels[i]`
    its class.

    `correct[i]` says whether answer i equals the gold answer (None: no gold, no answer, or undecided),
    `surprise[i]` the mean -log p of its tokens, in nats; `scores` has, by role, what reward models gave each
    answer.
    """

    labels: Sequence[int | None]
    winner: int | None
    correct: Sequence[bool | None]
    rng: random.Random
    question: str = ""
    answers: Sequence[str | None] = ()
    texts: Sequence[str] = ()
    gold: str | None = None
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    surprise: Sequence[float] = ()


class Earnings:
    """A reward as a function of a case; users' functions have a process of their own, which `close` ends."""

    def __init__(self, reward: Reward):
        self._reward = reward
        users = [part for part in parts(reward) if isinstance(part, PythonReward)]
        self._outside = {part: Outside(part) for part in users}

    def __call__(self, case: Case) -> tuple[float, ...]:
        """One number per answer."""
        return self._of(self._reward, case)

    def _of(self, reward: Reward, case: Case) -> tuple[float, ...]:
        match reward:
            case Majority():
                return tuple(float(case.winner is not None and k == case.winner) for k in case.labels)
            case Verified():
                return tuple(float(bool(c)) for c in case.correct)
            case TokenF1():
                golds = [] if case.gold is None else case.gold.split("\n")
                return tuple(0.0 if a is None else token_f1(a, golds) for a in case.answers)
            case RandomReward():
                return tuple(float(case.rng.random() < 0.5) for _ in case.labels)
            case ClassShare():
                return class_shares(case.labels)
            case Scrl():
                return scrl_rewards(reward, case.labels, case.surprise)
            case PythonReward():
                return self._outside[reward](case.question, case.answers, case.texts, case.gold)
            case ModelReward():
                return model_rewards(reward, case.scores[reward.role])
            case SumReward():
                columns = [[w.weight * r for r in self._of(w.reward, case)] for w in reward.of]
                return tuple(map(sum, zip(*columns, strict=True)))
            case _:
                assert_never(reward)

    def close(self) -> None:
        for process in self._outside.values():
            process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
