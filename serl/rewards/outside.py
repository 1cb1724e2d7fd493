"""A user's reward function, in a process of its own: it may raise, hang or return anything, and the shard
says so.

The function gets `(question, answers, texts, gold)` and returns one number for each answer:

    def reward(question: str, answers: list[str | None], texts: list[str], gold: str | None) -> list[float]:
    ...
"""

import math
from collections.abc import Sequence

from evaluation.outside import SHOWN_CHARS, Function, FunctionFailed
from serl.rewards.spec import PythonReward


class RewardFailed(ValueError):
    """A user's function did not say what answers earn; the message names it, the question and what came."""


class Outside:
    """One reward function; its process is started with the first call."""

    def __init__(self, reward: PythonReward):
        self._function = Function(reward.path, reward.text, limit_s=reward.limit_s)

    def __call__(
        self, question: str, answers: Sequence[str | None], texts: Sequence[str], gold: str | None
    ) -> tuple[float, ...]:
        try:
            value = self._function(question, list(answers), list(texts), gold)
        except FunctionFailed as e:
            raise self._failure(str(e), question) from e
        if not _fits(value, len(answers)):
            raise self._failure(
                f"returned {value!r:.{SHOWN_CHARS}}, not a list of {len(answers)} finite numbers", question
            )
        return tuple(map(float, value))

    def check(self) -> None:
        """Raises RewardFailed where there is no such function."""
        try:
            self._function.check()
        except FunctionFailed as e:
            raise self._failure(str(e), "") from e

    def _failure(self, what: str, question: str) -> RewardFailed:
        self.close()
        asked = f"; the question: {question!r:.{SHOWN_CHARS}}" if question else ""
        return RewardFailed(f"reward {self._function.path}: it {what}{asked}")

    def close(self) -> None:
        self._function.close()


def _fits(value: object, count: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )
