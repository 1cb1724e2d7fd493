"""Equivalence classes and verdicts for answers, under a time and a memory limit that hold in any thread.

math-verify's own limit is an alarm signal, which works in main threads only and cannot stop C code. Here
persistent worker processes do the reading, the parent holds the clock, and an answer that exceeds it is
*undecided*: counted, never "wrong", and never tried again in its group. Plain numbers and words are settled
without a worker.
"""

import os
import queue
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from evaluation.forms import plain
from evaluation.normal import MAX_ANSWER_CHARS, normalise
from evaluation.values import Value, place, same_within
from evaluation.worker import READY, Job, Outcome, Verdict

PATIENCE = 3
"""A limit is in seconds of processor time; on the wall an answer may take this many times as long, and no
longer.
"""
_START_S = 120.0
_START_ATTEMPTS = 3
_PAIRS_PER_JOB = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """A group of answers sorted into classes of equal meaning; a function of the answers, not of their order.

    `labels[i]` is the class of answer i, None where it has none (no answer, unparseable, or undecided). Class
    k is represented by the shortest, then alphabetically first, of its answers, `representatives[k]`.
    """

    labels: tuple[int | None, ...]
    num_unparsed: int
    num_undecided: int
    representatives: tuple[str, ...]


class Verifier:
    """A pool of worker processes that classify and judge answers; usable from any thread, as a context
    manager or not.
    """

    def __init__(self, workers: int = 1, limit_s: float = 5.0, memory_mb: int = 2048) -> None:
        if workers < 1 or limit_s <= 0 or memory_mb < 256:
            raise ValueError(
                f"Verifier(workers={workers}, limit_s={limit_s}, memory_mb={memory_mb}): needs >= 1, > 0 "
                "and >= 256"
            )
        self.workers = workers
        self.processes = [_Process(limit_s, memory_mb) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        for process in self.processes:
            self._idle.put(process)
        self.close = weakref.finalize(self, _stop_all, self.processes)
        """End the workers; also happens when the verifier is collected or the program ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def classes(self, answers: Sequence[str | None]) -> Classes:
        """The equivalence classes of one group of answers."""
        return self.classes_many([answers])[0]

    def classes_many(self, groups: Sequence[Sequence[str | None]]) -> list[Classes]:
        """The equivalence classes of many groups, all workers busy, in the order of the groups."""
        distinct = [_distinct(group) for group in groups]
        outcomes = [_classify_plain(texts) for texts in distinct]
        hard = [i for i, outcome in enumerate(outcomes) if outcome is None]
        for i, outcome in zip(
            hard, self._run_all([("classes", tuple(distinct[i].values())) for i in hard]), strict=True
        ):
            outcomes[i] = outcome
        return [
            _assemble(group, texts, outcome)
            for group, texts, outcome in zip(groups, distinct, outcomes, strict=True)
        ]

    def judge(self, pairs: Sequence[tuple[str, str | None] | tuple[str, str | None, float]]) -> list[Verdict]:
        """The verdict on each (gold, answer) or (gold, answer, tolerance), in order; equal pairs are judged
        once.
        """
        full = [(pair[0], pair[1], pair[2] if len(pair) == 3 else 0.0) for pair in pairs]
        verdicts = {pair: _judge_plain(*pair) for pair in dict.fromkeys(full)}
        hard = sorted((pair for pair, verdict in verdicts.items() if verdict is None), key=str)
        chunks = [tuple(hard[i : i + _PAIRS_PER_JOB]) for i in range(0, len(hard), _PAIRS_PER_JOB)]
        for chunk, outcome in zip(chunks, self._run_all([("pairs", chunk) for chunk in chunks]), strict=True):
            verdicts.update(zip(chunk, outcome, strict=True))
        return [verdicts[pair] for pair in full]

    def kinds(self, answers: Sequence[str]) -> list[str]:
        """What kind of answer each is (see `values.describe`), or "unparsed", or "undecided"."""
        chunks = [tuple(answers[i : i + _PAIRS_PER_JOB]) for i in range(0, len(answers), _PAIRS_PER_JOB)]
        return [kind for outcome in self._run_all([("kinds", chunk) for chunk in chunks]) for kind in outcome]

    def _run_all(self, jobs: Sequence[Job]) -> list[list]:
        if self.workers == 1 or len(jobs) <= 1:
            return [self._run(job) for job in jobs]
        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(self._run, jobs))

    def _run(self, job: Job) -> list:
        if not self.close.alive:
            raise ValueError("this Verifier is closed; make a new one")
        process = self._idle.get()
        try:
            return process.run(job)
        finally:
            self._idle.put(process)


class _Process:
    """One worker process, started when first needed and again after each kill."""

    def __init__(self, limit_s: float, memory_mb: int) -> None:
        self.limit_s = limit_s
        self.memory_mb = memory_mb
        self.child: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None

    def run(self, job: Job) -> list:
        """One outcome per item of the job. An item that exceeds the limit, or kills the worker twice, is
        undecided.
        """
        outcomes: list[Outcome | Verdict] = []
        num_deaths = 0
        finished = False
        try:
            while len(outcomes) < len(job[1]):
                before = len(outcomes)
                died = self._continue(job, outcomes)
                num_deaths = (num_deaths + 1 if len(outcomes) == before else 1) if died else 0
                if len(outcomes) < len(job[1]) and (not died or num_deaths == 2):
                    outcomes.append("undecided")
                    num_deaths = 0
            finished = True
        finally:
            if not finished:  # interrupted: the worker may still be sending
                self.stop()
        return outcomes

    def _continue(self, job: Job, outcomes: list[Outcome | Verdict]) -> bool:
        """Add outcomes until all are there, or an item exceeds the limit (False), or the worker dies (True).

        A new worker reads the settled representatives again and then says so: that time is no item's, and
        each was within its limit before.
        """
        num_settled = len({outcome for outcome in outcomes if isinstance(outcome, int)})
        try:
            connection = self._started()
            connection.send((job, tuple(outcomes)))
            ready = self._answers(connection, self.limit_s * (1 + num_settled)) and connection.recv() == READY
            while ready and len(outcomes) < len(job[1]):
                ready = self._answers(connection, self.limit_s)
                if ready:
                    outcomes.append(connection.recv())
            if not ready:
                self.stop()
                return False
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.stop()
            return True
        return False

    def _answers(self, connection: Connection, wait_s: float) -> bool:
        """Whether something comes before the worker has used `wait_s` of processor time; a busy machine gives
        it more patience.
        """
        begin, used = time.monotonic(), self._processor_s()
        rest = wait_s
        while rest > 0:
            if connection.poll(max(rest, 0.05)):
                return True
            rest = min(wait_s - (self._processor_s() - used), PATIENCE * wait_s - (time.monotonic() - begin))
        return False

    def _processor_s(self) -> float:
        assert self.child is not None, "only a started worker is waited for"
        times = psutil.Process(self.child.pid).cpu_times()
        return times.user + times.system

    def _started(self) -> Connection:
        """The pipe to a worker that is ready; a worker that dies while it starts was not killed by an answer,
        so try again.
        """
        for _ in range(_START_ATTEMPTS):
            if self.connection is None:
                self._start()
            if self.connection is not None:
                return self.connection
        raise RuntimeError(
            "the answer worker does not start; `python -c 'import evaluation.equivalence'` shows why"
        )

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        here, there = Pipe()
        arguments = [str(there.fileno()), str(self.limit_s), str(self.memory_mb), str(os.getpid())]
        self.child = subprocess.Popen(
            [sys.executable, "-m", "evaluation.worker", *arguments],
            pass_fds=[there.fileno()],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            },
        )
        there.close()
        self.connection = here
        if not (here.poll(_START_S) and _first(here) == READY):
            self.stop()

    def stop(self) -> None:
        """End the worker, if there is one."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
        if self.connection is not None:
            self.connection.close()
        self.child = self.connection = None


def _first(connection: Connection) -> str | None:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None


def _stop_all(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.stop()


def _distinct(answers: Sequence[str | None]) -> dict[str, str]:
    """The shortest original of each normal form, in canonical order (length, text); unusable answers are left
    out.
    """
    shortest: dict[str, str] = {}
    for answer in answers:
        if not answer or len(answer) > MAX_ANSWER_CHARS:
            continue
        key = normalise(answer)
        if key and (key not in shortest or (len(answer), answer) < (len(shortest[key]), shortest[key])):
            shortest[key] = answer
    return dict(sorted(shortest.items(), key=lambda item: (len(item[1]), item[1])))


def _classify_plain(texts: dict[str, str]) -> list[Outcome] | None:
    """The classes of a group of plain numbers and words; None if any answer needs a worker."""
    representatives: list[Value] = []
    labels: list[Outcome] = []
    for key in texts:
        value = plain(key)
        if value is None:
            return None
        label = place(value, representatives)
        representatives.extend([value] if label == len(representatives) else [])
        labels.append(label)
    return labels


def _assemble(answers: Sequence[str | None], texts: dict[str, str], outcomes: Sequence[Outcome]) -> Classes:
    found = dict(zip(texts, outcomes, strict=True))
    keys = [normalise(answer) if answer and len(answer) <= MAX_ANSWER_CHARS else "" for answer in answers]
    each = [found.get(key, "unparsed") for key in keys]
    counts = Counter(outcome for outcome in each if isinstance(outcome, str))
    num_classes = 1 + max((outcome for outcome in outcomes if isinstance(outcome, int)), default=-1)
    originals = list(texts.values())
    return Classes(
        labels=tuple(outcome if isinstance(outcome, int) else None for outcome in each),
        num_unparsed=counts["unparsed"],
        num_undecided=counts["undecided"],
        representatives=tuple(originals[list(outcomes).index(label)] for label in range(num_classes)),
    )


def _judge_plain(gold: str, answer: str | None, tolerance: float) -> Verdict | None:
    """The verdict where normal text, plain numbers or plain words settle it; else None."""
    key = normalise(answer) if answer and len(answer) <= MAX_ANSWER_CHARS else ""
    if not key:
        return "unparsed"
    truth = normalise(gold)
    if key == truth:
        return "correct"
    value, expected = plain(key), plain(truth)
    if value is None or expected is None:
        return None
    return "correct" if same_within(expected, value, tolerance) else "wrong"
