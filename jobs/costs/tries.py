"""Attempts at shards: when each began and ended, why, and what of its work survived it.

Many attempts are killed and have no last word: their last event or heartbeat tells, or Slurm's record of them
where there is one.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from jobs.costs.sacct import Record, split_attempt
from jobs.costs.told import Piece, Told
from jobs.runs.queue import Submission
from serl.run.rundir import Manifest, Shard
from serl.stages.kind import Kind, stage_of

End = Literal[
    "done", "at work", "preempted", "time limit", "node failure", "killed", "hung", "failed", "cancelled"
]
NOTHING_S = 0.01
LAST_MOMENT_S = 15.0
WARNING_S = 300.0  # a job asked to leave with less than this until its end was asked because of its end
STATES: Mapping[str, End] = {
    "PREEMPTED": "preempted", "TIMEOUT": "time limit", "DEADLINE": "time limit", "NODE_FAIL": "node failure",
    "BOOT_FAIL": "node failure", "CANCELLED": "cancelled", "OUT_OF_MEMORY": "killed",
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Try:
    """One attempt, all ranks. `kept_s` of its time survived; `startup_s` came before its first work."""

    round: int
    stage: str
    index: int
    id: str
    begin: float
    end: float
    ended: End
    ranks: int = 1
    gpus: int = 0
    nodes: int = 1
    startup_s: float = 0.0
    kept_s: float = 0.0
    wait_s: float = 0.0
    repeated: bool = True  # its start-up was not that of the attempt which published
    exact: bool = False  # Slurm's records say when it began and ended

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def lost_s(self) -> dict[str, float]:
        """What it did not keep, and its start-up if another's counted, by cause."""
        if self.ended in ("done", "at work"):
            lost = {"duplicate": self.seconds - self.kept_s}
        else:
            again = {"start-up repeated": self.startup_s} if self.repeated else {}
            lost = again | {self.ended: self.seconds - self.kept_s - self.startup_s}
        return {cause: s for cause, s in lost.items() if s > NOTHING_S}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """What is known beside events. `records`: Slurm's, by job and restart; `live`: no end is at work."""

    records: Mapping[tuple[str, int], Record]
    scheduled: bool
    live: bool
    now: float
    beats: Mapping[str, float] = field(default_factory=dict)


def heartbeats(logs: Path) -> dict[str, float]:
    """When each attempt last gave a sign of life, of those whose file nobody has written over since."""
    found = {}
    for path in logs.glob("*/*/heartbeat-*-00000.json"):
        try:
            found[json.loads(path.read_bytes())["attempt"]] = path.stat().st_mtime
        except (json.JSONDecodeError, KeyError):  # caught in the middle of being written
            continue
    return found


def judge(
    shard: Shard, attempts: Sequence[Told], done: Manifest | None, kind: Kind, clues: Clues
) -> list[Try]:
    """The tries of one shard in their order, each with what of it survived."""
    pairs = sorted(((_seen(shard, t, clues), t) for t in attempts), key=lambda pair: pair[0].begin)
    later, committed = [t for _, t in pairs], set[int]()
    for own, t in pairs:
        later.pop(0)
        won = done is not None and done.attempt == t.id
        if not own.ended:
            at_work = clues.live and done is None and not later
            own.ended = "done" if won else "at work" if at_work else "killed"
            own.end = done.created if won and done else clues.now if at_work else own.end
        own.end = max(own.begin, own.end)  # clocks differ by node
        own.repeated = not won and bool(done or later)  # else the latest start-up is the one that counts
        work = t.steps if kind.ranks else t.parts
        begun = work[0].begin if work else _begun(t, own.end, bare=kind.bare)
        own.startup_s = min(max(0.0, begun - own.begin), own.seconds)
        kept = _steps_kept(own, t, later) if kind.ranks else [p for p in work if p.number not in committed]
        committed.update(p.number for p in kept)
        kept_s = sum(p.seconds for p in kept if p.end <= own.end + 1.0)
        if won or own.ended == "at work":
            again = [] if kind.ranks else [p for p in work if p not in kept]  # a rival had them before
            kept_s = own.seconds - sum(p.seconds for p in again if won)
        own.kept_s = min(kept_s, own.seconds)
    return [own for own, _ in pairs]


def _seen(shard: Shard, t: Told, clues: Clues) -> Try:
    """As its events, its heartbeat and Slurm tell; `ended` is empty where nobody knows that it has."""
    word, record = t.last_word, clues.records.get(split_attempt(t.id))
    begin, end = t.begin, word["time"] if word else None
    if record:
        begin, end = min(begin, record.start), max(record.end, end or 0.0) if record.end else end
    end = end or max(t.events[-1]["time"], clues.beats.get(t.id, 0.0))
    ended = _how(word, record, t.first.get("until"), end, scheduled=clues.scheduled)
    return Try(
        round=shard.round, stage=shard.stage, index=shard.index, id=t.id, begin=begin, end=end,
        ended="killed" if ended == "failed" and t.killed_by_peer else ended, ranks=t.ranks,
        gpus=t.first.get("gpus", 0), nodes=t.first.get("nodes", 1), exact=record is not None,
        wait_s=record.wait_s if record else 0.0,
    )  # fmt: skip


def _how(
    word: Mapping | None, record: Record | None, until: float | None, end: float, *, scheduled: bool
) -> End | Literal[""]:
    """Why an attempt ended; nothing: nobody knows that it has."""
    if word is None:
        if until is not None and end > until - LAST_MOMENT_S:
            return "time limit"
        return STATES.get(record.state, "killed") if record and record.end is not None else ""
    if word["kind"] == "halted":
        return "failed"  # safety forbade it: what was spent on it is lost
    if word["kind"] != "stopped":
        return word["kind"]
    if record and record.state == "CANCELLED":
        return "cancelled"
    left = word.get("left_s")
    if word.get("asked") is False or (isinstance(left, int | float) and left < WARNING_S):
        return "time limit"
    return "preempted" if scheduled else "cancelled"  # without a scheduler only a person asks


def _begun(t: Told, end: float, *, bare: bool) -> float:
    """When an attempt that finished no piece began to work; its end where it never came to that."""
    if bare:
        return min(t.first["time"], end)
    worked = (e["time"] for e in t.events if e["kind"] == "progress" or e.get("name", "").endswith("load"))
    return min(next(worked, end), end)


def _steps_kept(own: Try, t: Told, later: Sequence[Told]) -> list[Piece]:
    """The optimizer steps that its successor did not have to make again."""
    steps = t.steps
    resumed = next((s.steps[0].number - 1 for s in later if s.steps), 0 if later else math.inf)
    kept = [p for p in steps if p.number <= resumed]
    left_in_order = own.ended in ("preempted", "time limit", "cancelled") and (t.last_word or own.exact)
    if kept and kept == steps and left_in_order:  # it saved as it left
        kept[-1] = replace(kept[-1], end=own.end)
    return kept


def eventless(
    records: Mapping[tuple[str, int], Record], known: Collection[tuple[str, int]], own: Iterable[Submission]
) -> Iterator[Try]:
    """What only Slurm knows of: it found predecessors missing and went back, or died before its first word.
    Only of the run's `own` jobs: at a shared stage it may be another run's.
    """
    submissions = {s.id: s for s in own}
    for (job, restart), record in records.items():
        id, _, position = job.partition("_")
        shards = submissions[id].shards[int(position or 0) :][:1] if id in submissions else ()
        if (job, restart) in known or record.end is None or not shards:
            continue
        round, stage = stage_of(submissions[id].job)
        yield Try(
            round=round, stage=stage, index=shards[0], id=job, begin=record.start, end=record.end,
            ended=STATES.get(record.state, "killed"), startup_s=record.end - record.start, exact=True,
            wait_s=record.wait_s,
        )  # fmt: skip
