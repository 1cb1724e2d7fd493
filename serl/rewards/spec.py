"""What an answer may earn, as configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from evaluation.domain import function_path
from serl.config.rewards import ClassShare, Scrl
from serl.config.schema import Positive, Section


class Majority(Section):
    """1 for answers in the single largest equivalence class; a tie has no winner."""

    kind: Literal["majority"] = "majority"


class Verified(Section):
    """1 for answers equivalent to the gold answer."""

    kind: Literal["verified"] = "verified"


class TokenF1(Section):
    """The F1 of the answer's words and the gold answer's (SQuAD's): part of a right answer earns a part."""

    kind: Literal["token_f1"] = "token_f1"


class RandomReward(Section):
    """A fair coin: the null control, which must teach nothing."""

    kind: Literal["random"] = "random"


class PythonReward(Section):
    """A user's function: `(question, answers, texts, gold) -> one number an answer`, called in a process of
    its own.
    """

    kind: Literal["python"] = "python"
    path: str = Field(description="package.module:function, or file.py:function beside the run file")
    text: str | None = Field(
        default=None, description="the file's content, filled in when the run file is read"
    )
    limit_s: Positive = Field(default=10.0, description="time limit of one call, seconds")

    @field_validator("path")
    @classmethod
    def _names_a_function(cls, path: str) -> str:
        return function_path(path)


class ModelReward(Section):
    """What a reward model says of an answer, between 0 and 1; in a training that samples for itself."""

    kind: Literal["model"] = "model"
    role: str = Field(default="reward", description="a role that was trained with a scalar head")
    of: Literal["pair", "answer"] = Field(
        default="pair",
        description="pair: how probably it is better than another answer to the question, on average; "
        "answer: sigmoid of its score, as SER has it, which an offset of all scores moves",
    )


class Weighted(Section):
    """A reward and its weight in a sum."""

    weight: float = 1.0
    reward: Reward


class SumReward(Section):
    """The weighted sum of other rewards."""

    kind: Literal["sum"] = "sum"
    of: tuple[Weighted, ...] = Field(min_length=1)


Reward = Annotated[
    Majority | Verified | RandomReward | TokenF1 | ClassShare | Scrl | PythonReward | ModelReward | SumReward,
    Field(discriminator="kind"),
]
Weighted.model_rebuild()
SumReward.model_rebuild()


def parts(reward: Reward) -> tuple[Reward, ...]:
    """The rewards that a reward is made of; itself where it is no sum."""
    return (
        tuple(p for w in reward.of for p in parts(w.reward)) if isinstance(reward, SumReward) else (reward,)
    )


def needs_gold(reward: Reward) -> bool:
    """Whether some of it is nothing without gold answers."""
    return any(isinstance(part, Verified | TokenF1) for part in parts(reward))


def judges(reward: Reward) -> tuple[str, ...]:
    """The roles whose scores a reward needs."""
    return tuple(dict.fromkeys(p.role for p in parts(reward) if isinstance(p, ModelReward)))


def voted(reward: Reward) -> bool:
    """Whether it comes from the vote alone, so that a group without a winner has none at all."""
    return all(isinstance(part, Majority) for part in parts(reward))
