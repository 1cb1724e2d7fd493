"""A user's own function, in a process of its own: it may raise, hang, end its process or return anything, and
the caller is told.
"""

import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe

START_S = 60.0
SHOWN_CHARS = 300


class FunctionFailed(Exception):
    """What a user's function did instead of returning: the end of a sentence that begins with its name."""


class TooLate(FunctionFailed):
    """It did not return in time, or its process ended."""


class Function:
    """The process that calls one function; started with the first call, and again after each end.

    `text` is the content of the file that `path` names, where it names one.
    """

    def __init__(self, path: str, text: str | None, *, limit_s: float, memory_mb: int = 0):
        self.path = path
        self._text, self._limit_s, self._memory_mb = text, limit_s, memory_mb
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None

    def __call__(self, *arguments: object) -> object:
        """What it returns, in plain values; raises FunctionFailed."""
        pipe = self._pipe or self._start()
        try:
            pipe.send(arguments)
            if not pipe.poll(self._limit_s):
                raise self._failed(TooLate(f"gave no answer within its limit_s of {self._limit_s:g} s"))
            word, value = pipe.recv()
        except (EOFError, OSError) as e:
            raise self._failed(TooLate("ended its process")) from e
        if word == "raised":
            raise self._failed(FunctionFailed(f"raised {value}"))
        return value

    def check(self) -> None:
        """Raises FunctionFailed where there is no such function."""
        if self._pipe is None:
            self._start()
        self.close()

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _failed(self, error: FunctionFailed) -> FunctionFailed:
        self.close()
        return error

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        numbers = map(str, (theirs.fileno(), os.getpid(), self._memory_mb))
        command = [sys.executable, "-m", "evaluation.outside_worker", *numbers]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._pipe = ours
        try:
            ours.send((self.path, self._text))
            word, value = ours.recv() if ours.poll(START_S) else ("raised", f"nothing in {START_S:g} s")
        except (EOFError, OSError):
            word, value = "raised", "the end of its process"
        if word == "raised":
            raise self._failed(FunctionFailed(f"cannot be loaded: {value}"))
        return ours
