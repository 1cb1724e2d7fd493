"""A user's reward function, in a process of its own: it may raise, hang or return anything, and the shard
says so.

The function gets `(question, answers, texts, gold)` and returns one number for each answer:

    def reward(question: str, answers: list[str | None], texts: list[str], gold: str | None) -> list[float]:
    ...
"""

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe

from serl.rewards.spec import PythonReward

START_S = 60.0
SHOWN_CHARS = 300


class RewardFailed(ValueError):
    """A user's function did not say what answers earn; the message names it, the question and what came."""


class Outside:
    """The process that calls one function; started with the first call."""

    def __init__(self, reward: PythonReward):
        self._reward = reward
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None

    def __call__(
        self, question: str, answers: Sequence[str | None], texts: Sequence[str], gold: str | None
    ) -> tuple[float, ...]:
        pipe = self._pipe or self._start()
        try:
            pipe.send((question, list(answers), list(texts), gold))
            if not pipe.poll(self._reward.limit_s):
                raise self._failure(
                    f"gave no answer within its limit_s of {self._reward.limit_s:g} s", question
                )
            word, value = pipe.recv()
        except (EOFError, OSError) as e:
            raise self._failure("ended its process", question) from e
        if word == "raised":
            raise self._failure(f"raised {value}", question)
        if not _fits(value, len(answers)):
            raise self._failure(
                f"returned {value!r:.{SHOWN_CHARS}}, not a list of {len(answers)} finite numbers", question
            )
        return tuple(map(float, value))

    def check(self) -> None:
        """Raises RewardFailed where there is no such function."""
        if self._pipe is None:
            self._start()
        self.close()

    def _failure(self, what: str, question: str) -> RewardFailed:
        self.close()
        asked = f"; the question: {question!r:.{SHOWN_CHARS}}" if question else ""
        return RewardFailed(f"reward {self._reward.path}: it {what}{asked}")

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        command = [sys.executable, "-m", "serl.rewards.worker", str(theirs.fileno()), str(os.getpid())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._pipe = ours
        try:
            ours.send((self._reward.path, self._reward.text))
            word, value = ours.recv() if ours.poll(START_S) else ("raised", f"nothing in {START_S:g} s")
        except (EOFError, OSError):
            word, value = "raised", "the end of its process"
        if word == "raised":
            raise self._failure(f"cannot be loaded: {value}", "")
        return ours

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _fits(value: object, count: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )
