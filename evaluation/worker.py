"""The process that reads and compares hostile answers: `python -m evaluation.worker`, started and killed by
`Verifier`.

It gets one job at a time (a group to classify, or pairs to judge), says when it is ready for the first
answer, and sends one outcome per answer, so that the parent, which holds the clock, always knows which answer
is being worked on. It ends within a second when its parent is gone, even in the midst of work that never
returns to Python: a child of its own watches for that.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from evaluation.values import Value

Outcome = int | Literal["unparsed", "undecided"]
Verdict = Literal["correct", "wrong", "unparsed", "undecided"]
Pair = tuple[str, str, float]
"""A gold answer, a response's answer, and how far apart numbers may be, relatively."""
Job = tuple[Literal["classes", "kinds"], tuple[str, ...]] | tuple[Literal["pairs"], tuple[Pair, ...]]

READY = "ready"
GIVING_UP = (RecursionError, ArithmeticError, ValueError, TypeError, AttributeError, NotImplementedError)
"""How the computer algebra says that it cannot. Memory that runs out may be the fault of earlier answers: it
ends the worker instead.
"""
_LOOK_UP_S = 0.2


def classify(
    answers: Sequence[str], settled: Sequence[Outcome], limit_s: float
) -> Iterator[Outcome | Literal["ready"]]:
    """The class of each answer after the settled ones: the first earlier class it equals, or a new one."""
    from evaluation.values import place

    num_classes = 1 + max((outcome for outcome in settled if isinstance(outcome, int)), default=-1)
    representatives = [_read(answers[list(settled).index(label)])[0] for label in range(num_classes)]
    yield READY
    for answer in answers[len(settled) :]:
        try:
            value, _ = _read(answer)
            label = "unparsed" if value is None else place(value, representatives)
        except GIVING_UP:
            yield "undecided"  # the computer algebra gave up on this answer; the parent counts it
            continue
        if label == len(representatives):
            representatives.append(value)
        yield label


def judge(
    pairs: Sequence[Pair], settled: Sequence[Outcome], limit_s: float
) -> Iterator[Verdict | Literal["ready"]]:
    """Whether each answer equals its gold; one limit for each pair, whether or not earlier ones have read
    half of it already.
    """
    from evaluation import values

    yield READY
    for gold, answer, tolerance in pairs[len(settled) :]:
        try:
            (value, spent), (truth, also_spent) = _read(answer), _read(gold)
            start = time.process_time()
            right = value is not None and truth is not None and values.same_within(truth, value, tolerance)
            late = spent + also_spent + time.process_time() - start > limit_s
            yield "undecided" if late else "correct" if right else "unparsed" if value is None else "wrong"
        except GIVING_UP:
            yield "undecided"


def kinds(answers: Sequence[str], settled: Sequence[Outcome], limit_s: float) -> Iterator[str]:
    """What kind of answer each is, or why it is none."""
    from evaluation import values

    yield READY
    for answer in answers[len(settled) :]:
        try:
            value, _ = _read(answer)
            yield "unparsed" if value is None else values.describe(value)
        except GIVING_UP:
            yield "undecided"


@lru_cache(maxsize=4096)
def _read(answer: str) -> tuple[Value | None, float]:
    """What an answer means, and the processor time that it took to read it."""
    from evaluation.equivalence import understand

    start = time.process_time()
    value = understand(answer)
    return value, time.process_time() - start


def serve(connection: Connection, limit_s: float) -> None:
    """Work through jobs until the parent closes the pipe."""
    while True:
        (kind, items), settled = connection.recv()
        for outcome in _WORK[kind](items, settled, limit_s):
            connection.send(outcome)


_WORK = {"classes": classify, "pairs": judge, "kinds": kinds}


def watch(connection: Connection, parent: int) -> None:
    """Leave a child behind that kills this process once its parent is gone, whatever this one is doing then;
    it ends with this process.
    """
    worker = os.getpid()
    if os.fork():
        return
    try:
        connection.close()  # else the parent would not see the worker's end
        while os.getppid() == worker:
            if int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1]) != parent:
                os.kill(worker, signal.SIGKILL)
            time.sleep(_LOOK_UP_S)
    finally:
        os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Limit this process, load the computer algebra, say so, and serve."""
    handle, limit_s, memory_mb, parent = (
        int(arguments[0]),
        float(arguments[1]),
        int(arguments[2]),
        int(arguments[3]),
    )
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # a job's signals are for the parent, which ends this process
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(handle)
    watch(connection, parent)
    import evaluation.equivalence  # noqa: F401  (the slow import, before the clock starts)

    connection.send(READY)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        serve(connection, limit_s)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent closed its end: the normal end of this process


if __name__ == "__main__":
    main(sys.argv[1:])
