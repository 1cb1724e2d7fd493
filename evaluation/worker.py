"""The process that reads and compares hostile answers: `python -m evaluation.worker`, started and killed by `Verifier`.

It gets one job at a time (a group to classify, or pairs to judge) and sends one outcome per answer, so that the parent, which
holds the clock, always knows which answer is being worked on. It ends when its parent is gone, even in the midst of work: an
alarm that nothing catches covers code that never returns to Python.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Literal

Outcome = int | Literal["unparsed", "undecided"]
Verdict = Literal["correct", "wrong", "unparsed", "undecided"]
Pair = tuple[str, str, float]
"""A gold answer, a response's answer, and how far apart numbers may be, relatively."""
Job = tuple[Literal["classes", "kinds"], tuple[str, ...]] | tuple[Literal["pairs"], tuple[Pair, ...]]

READY = "ready"
GIVING_UP = (MemoryError, RecursionError, ArithmeticError, ValueError, TypeError, AttributeError, NotImplementedError)
_LOOK_UP_S = 2.0
_GRACE_S = 5.0
_SLACK = 4  # more than the parent's patience: the parent decides, this alarm is for workers without one


def classify(answers: Sequence[str], settled: Sequence[Outcome]) -> Iterator[Outcome]:
    """The class of each answer after the settled ones: the first earlier class it equals, or a new one."""
    from evaluation.equivalence import understand
    from evaluation.values import place

    num_classes = 1 + max((outcome for outcome in settled if isinstance(outcome, int)), default=-1)
    representatives = [understand(answers[list(settled).index(label)]) for label in range(num_classes)]
    for answer in answers[len(settled) :]:
        try:
            value = understand(answer)
            label = "unparsed" if value is None else place(value, representatives)
        except GIVING_UP:
            yield "undecided"  # the computer algebra gave up on this answer; the parent counts it
            continue
        if label == len(representatives):
            representatives.append(value)
        yield label


def judge(pairs: Sequence[Pair]) -> Iterator[Verdict]:
    """Whether each answer equals its gold."""
    from evaluation import values
    from evaluation.equivalence import understand

    for gold, answer, tolerance in pairs:
        try:
            value, truth = understand(answer), understand(gold)
            right = value is not None and truth is not None and values.same_within(truth, value, tolerance)
            yield "correct" if right else "unparsed" if value is None else "wrong"
        except GIVING_UP:
            yield "undecided"


def kinds(answers: Sequence[str]) -> Iterator[str]:
    """What kind of answer each is, or why it is none."""
    from evaluation import values
    from evaluation.equivalence import understand

    for answer in answers:
        try:
            value = understand(answer)
            yield "unparsed" if value is None else values.describe(value)
        except GIVING_UP:
            yield "undecided"


def serve(connection: Connection, limit_s: float, parent: int) -> None:
    """Work through jobs until the parent closes the pipe or is gone."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, 0)
        while not connection.poll(_LOOK_UP_S):
            if os.getppid() != parent:
                return
        (kind, items), settled = connection.recv()
        signal.setitimer(signal.ITIMER_REAL, (1 + len(settled)) * limit_s * _SLACK + _GRACE_S)
        for outcome in _WORK[kind](items, settled):
            connection.send(outcome)
            signal.setitimer(signal.ITIMER_REAL, limit_s * _SLACK + _GRACE_S)


_WORK = {
    "classes": classify,
    "pairs": lambda items, settled: judge(items[len(settled) :]),
    "kinds": lambda items, settled: kinds(items[len(settled) :]),
}


def main(arguments: Sequence[str]) -> None:
    """Limit this process, load the computer algebra, say so, and serve."""
    handle, limit_s, memory_mb, parent = int(arguments[0]), float(arguments[1]), int(arguments[2]), int(arguments[3])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # a job's signals are for the parent, which ends this process
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(handle)
    import evaluation.equivalence  # noqa: F401  (the slow import, before the clock starts)

    connection.send(READY)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        serve(connection, limit_s, parent)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent closed its end: the normal end of this process


if __name__ == "__main__":
    main(sys.argv[1:])
