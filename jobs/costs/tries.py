"""Attempts at shards: when each began and ended, why, and what of its work survived it.

Many attempts are killed and have no last word: their last event or heartbeat tells, or Slurm's record of them
where there is one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs.chain.queue import Submission
from jobs.costs.sacct import Record, split_attempt
from jobs.costs.told import Told
from serl.run.rundir import Manifest, Shard
from serl.stages.kind import Kind, stage_of

End = Literal[
    "done", "at work", "preempted", "time limit", "node failure", "killed", "hung", "failed", "cancelled"
]
LAST_MOMENT_S = 15.0
WARNING_S = 300.0  # a job asked to leave with less than this until its end was asked because of its end
STATES: Mapping[str, End] = {
    "PREEMPTED": "preempted", "TIMEOUT": "time limit", "DEADLINE": "time limit", "NODE_FAIL": "node failure",
    "BOOT_FAIL": "node failure", "CANCELLED": "cancelled", "OUT_OF_MEMORY": "killed",
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Try:
    """One attempt, all its ranks together. `kept_s` of its time survived; `startup_s` came before its first
    work.
    """

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
    later, seen = [t for _, t in pairs], set()
    for own, t in pairs:
        later.pop(0)
        won = done is not None and done.attempt == t.id
        if not own.ended:
            at_work = clues.live and done is None and not later
            own.ended = "done" if won else "at work" if at_work else "killed"
            own.end = done.created if won and done else clues.now if at_work else own.end
        own.end, own.repeated = max(own.begin, own.end), not won  # clocks differ by node
        work = _steps_kept(t, own, later) if kind.ranks else _parts_kept(t, seen)
        begun = work[0][0] if work else _begun(t, own.end, bare=kind.bare)
        own.startup_s = min(max(0.0, begun - own.begin), own.seconds)
        kept_s = sum(stop - start for start, stop in work if stop <= own.end + 1.0)
        if won or own.ended == "at work":
            kept_s = own.seconds - (_undone(t, len(work)) if won else 0.0)
        own.kept_s = min(kept_s, own.seconds)
    tries = [own for own, _ in pairs]
    if not done and tries and tries[-1].ended != "done":  # the latest start-up is the one that counts
        tries[-1].repeated = False
    return tries


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
        wait_s=max(0.0, record.start - record.submit) if record else 0.0,
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
    """When an attempt that kept nothing began to work; its end where it never came to that."""
    if bare:
        return min(t.first["time"], end)
    for e in t.events:
        if e["kind"] in ("progress", "step") or (e["kind"] == "phase" and e["name"].endswith("load")):
            return min(e["time"], end)
    return end


def _parts_kept(t: Told, seen: set[str]) -> list[tuple[float, float]]:
    """When the attempt worked on the parts that it, and none before it, committed. Adds them to `seen`."""
    new = {p.name: p for p in t.parts() if p.name not in seen}
    seen.update(new)
    return [(p.begin, p.end) for p in new.values()]


def _undone(t: Told, num_kept: int) -> float:
    """Of the winner's time, the parts that a rival had committed before."""
    parts = [e["seconds"] for e in t.phases() if " part " in e["name"]]
    return sum(parts[num_kept:])


def _steps_kept(t: Told, own: Try, later: Sequence[Told]) -> list[tuple[float, float]]:
    """When the attempt made the optimizer steps that its successor did not have to make again."""
    mine = {step: e["time"] for step, e in t.steps().items()}
    if not mine:
        return []
    resumed = next((min(theirs) - 1 for s in later if (theirs := s.steps())), 0 if later else max(mine))
    times = sorted(mine.values())
    begun = times[0] - ((times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0)
    left_in_order = own.ended in ("preempted", "time limit", "cancelled") and (t.last_word or own.exact)
    if left_in_order and resumed >= max(mine):  # it saved as it left
        return [(begun, own.end)]
    return [(begun, max((at for step, at in mine.items() if step <= resumed), default=begun))]


def eventless(job: str, record: Record, submission: Submission) -> Try:
    """Only Slurm knows of it: it found predecessors missing and went back, or died before its first word."""
    round, stage = stage_of(submission.job)
    end = record.end or record.start
    return Try(
        round=round, stage=stage, index=submission.shards[position(job)], id=job, begin=record.start, end=end,
        ended=STATES.get(record.state, "killed"), startup_s=end - record.start, exact=True,
        wait_s=max(0.0, record.start - record.submit),
    )  # fmt: skip


def position(job: str) -> int:
    """In its array; 0 for a job that is none."""
    return int(job.partition("_")[2] or 0)
