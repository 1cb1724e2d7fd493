"""Attempts at shards, from the event files that they leave: when each began and ended, why, and what of its work survived it.

Many attempts are killed and have no last word: their last event or heartbeat tells, or Slurm's record of them where there is one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.chain.queue import Submission
from jobs.costs.sacct import Record
from serl.run.rundir import Manifest, Shard
from serl.stages.kind import Kind

End = Literal[
    "done", "at work", "preempted", "time limit", "node failure", "killed", "hung", "failed", "cancelled"
]
LAST_MOMENT_S = 15.0
WARNING_S = (
    300.0  # a job that is asked to leave with less than this until its end was asked because of its end
)
STATES: Mapping[str, End] = {
    "PREEMPTED": "preempted", "TIMEOUT": "time limit", "DEADLINE": "time limit", "NODE_FAIL": "node failure", "BOOT_FAIL": "node failure",
    "CANCELLED": "cancelled", "OUT_OF_MEMORY": "killed",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One attempt at one shard, all its ranks together. `kept_s` is what survived of `end - begin`; `startup_s` comes before its first work."""

    round: int
    stage: str
    index: int
    id: str
    begin: float
    end: float
    ended: End
    ranks: int
    gpus: int
    nodes: int = 1
    startup_s: float
    kept_s: float
    wait_s: float = 0.0
    repeated: bool = True  # its start-up was not that of the attempt which published
    exact: bool = False  # Slurm's records say when it began and ended

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the first rank of an attempt said, in order, and how it ended as far as anybody knows."""

    id: str
    begin: float
    end: float | None  # None: no last word
    last: float  # last sign of life
    ended: End | None
    ranks: int
    gpus: int
    nodes: int
    wait_s: float
    exact: bool
    events: Sequence[dict]


def attempt_files(folder: Path) -> dict[tuple[str, int, int, str], Path]:
    """The event file of the first rank of each attempt, by stage, round, shard and attempt."""
    found = {}
    for path in sorted(folder.glob("*-0.jsonl")):
        stage, round, index, *attempt = path.stem.split("-")
        found[stage, int(round[1:]), int(index), "-".join(attempt[:-1])] = path
    return found


def read_rank(path: Path) -> list[dict]:
    """The events of one rank, torn lines left out."""
    events = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True):
        if line.endswith("\n"):
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:  # an append after a torn line
                continue
    return events


def heartbeats(logs: Path) -> dict[str, float]:
    """When each attempt last gave a sign of life, of those whose file nobody has written over since."""
    found = {}
    for path in logs.glob("*/*/heartbeat-*-00000.json"):
        try:
            found[json.loads(path.read_bytes())["attempt"]] = path.stat().st_mtime
        except (json.JSONDecodeError, KeyError):  # caught in the middle of being written
            continue
    return found


def tell(
    id: str, events: Sequence[dict], record: Record | None, beat: float | None, *, scheduled: bool
) -> Told:
    first = events[0]
    begin, last = first["time"] - first.get("boot_s", 0.0), max(events[-1]["time"], beat or 0.0)
    end = last_word["time"] if (last_word := _last_word(events)) else None
    if record is not None:
        begin, end = min(begin, record.start), max(record.end, end or 0.0) if record.end is not None else end
    return Told(
        id=id, begin=begin, end=end, last=last, ended=_how(last_word, record, first.get("until"), end or last, scheduled=scheduled),
        ranks=first.get("ranks", 1), gpus=first.get("gpus", 0), nodes=first.get("nodes", 1), events=events, exact=record is not None,
        wait_s=max(0.0, record.start - record.submit) if record is not None else 0.0,
    )  # fmt: skip


def _last_word(events: Sequence[dict]) -> dict | None:
    return next(
        (e for e in reversed(events) if e["kind"] in ("done", "stopped", "failed", "hung", "halted")), None
    )


def silent(path: Path) -> bool:
    """Whether a peer was there and left without a word: its death is what made the others raise."""
    return path.exists() and bool(events := read_rank(path)) and _last_word(events) is None


def _how(
    word: Mapping[str, object] | None,
    record: Record | None,
    until: float | None,
    end: float,
    *,
    scheduled: bool,
) -> End | None:
    """Why an attempt ended; None: nobody knows that it has."""
    if word is None:
        if until is not None and end > until - LAST_MOMENT_S:
            return "time limit"
        return STATES.get(record.state, "killed") if record is not None and record.end is not None else None
    if word["kind"] == "halted":
        return "failed"  # safety forbade it: what was spent on it is lost
    if word["kind"] != "stopped":
        return word["kind"]
    if record is not None and record.state == "CANCELLED":
        return "cancelled"
    left = word.get("left_s")
    if word.get("asked") is False or (isinstance(left, int | float) and left < WARNING_S):
        return "time limit"
    return "preempted" if scheduled else "cancelled"  # without a scheduler only a person asks


def judge(
    shard: Shard, told: Sequence[Told], done: Manifest | None, *, kind: Kind, live: bool, now: float
) -> list[Try]:
    """The tries of one shard in their order, each with what of it survived."""
    told = sorted(told, key=lambda t: t.begin)
    tries, seen = [], set()
    for number, t in enumerate(told):
        won = done is not None and done.attempt == t.id
        ended = t.ended or (
            "done" if won else "at work" if live and done is None and number == len(told) - 1 else "killed"
        )
        end = max(
            t.begin, t.end or (done.created if won and done else now if ended == "at work" else t.last)
        )  # clocks differ by node
        work = _steps_kept(t, told[number + 1 :]) if kind.ranks else _parts_kept(t, seen)
        first = work[0][0] if work else end
        startup_s = min(max(0.0, first - t.begin), end - t.begin)
        kept_s = sum(stop - start for start, stop in work if stop <= end + 1.0)
        if won or ended == "at work":
            kept_s = end - t.begin - (_undone(t, work) if won else 0.0)
        tries.append(
            Try(
                round=shard.round, stage=shard.stage, index=shard.index, id=t.id, begin=t.begin, end=end, ended=ended, ranks=t.ranks, gpus=t.gpus, nodes=t.nodes,
                startup_s=_startup_s(t, end, bare=kind.bare) if not work else startup_s, kept_s=min(kept_s, end - t.begin), wait_s=t.wait_s, repeated=not won,
                exact=t.exact,
            )
        )  # fmt: skip
    return tries if done else _nobody_won(tries)


def _nobody_won(tries: Sequence[Try]) -> list[Try]:
    """Of a shard that is not done, the latest attempt's start-up is still the one that counts."""
    return (
        [*tries[:-1], replace(tries[-1], repeated=False)]
        if tries and tries[-1].ended != "done"
        else list(tries)
    )


def _startup_s(t: Told, end: float, *, bare: bool) -> float:
    """Of an attempt that kept nothing: until it began to work, or all of it where it never came to that."""
    if bare:
        return min(t.events[0]["time"], end) - t.begin
    begun = next(
        (
            e["time"]
            for e in t.events
            if e["kind"] in ("progress", "step") or (e["kind"] == "phase" and e["name"].endswith("load"))
        ),
        end,
    )
    return max(0.0, min(begun, end) - t.begin)


def _parts_kept(t: Told, seen: set[str]) -> list[tuple[float, float]]:
    """When the attempt worked on the parts that it, and none before it, committed. Adds them to `seen`."""
    spans, load_s = [], 0.0
    for e in t.events:
        if e["kind"] == "phase" and e["name"].endswith("load"):
            load_s = e["seconds"]
        if e["kind"] == "phase" and " part " in e["name"]:
            if e["name"] not in seen:
                spans.append((e["time"] - e["seconds"] + load_s, e["time"]))
                seen.add(e["name"])
            load_s = 0.0
    return spans


def _undone(t: Told, work: Sequence[tuple[float, float]]) -> float:
    """Of the winner's time, the parts that a rival had committed before."""
    parts = [e["seconds"] for e in t.events if e["kind"] == "phase" and " part " in e["name"]]
    return sum(parts[len(work) :]) if len(parts) > len(work) else 0.0


def _steps_kept(t: Told, later: Sequence[Told]) -> list[tuple[float, float]]:
    """When the attempt made the optimizer steps that its successor did not have to make again."""
    mine = _steps(t)
    if not mine:
        return []
    resumed = next((min(theirs) - 1 for s in later if (theirs := _steps(s))), max(mine) if not later else 0)
    survived = [at for step, at in mine.items() if step <= resumed]
    begun = min(mine.values()) - _pace(mine)
    stopped = (
        t.end is not None and t.ended in ("preempted", "time limit", "cancelled") and resumed >= max(mine)
    )
    last = t.end if stopped and t.end else max(survived, default=begun)
    return [(begun, last)]


def _steps(t: Told) -> dict[int, float]:
    """When each step was said to be done."""
    return {
        e.get("step", e.get("done")): e["time"]
        for e in t.events
        if e["kind"] == "step" or (e["kind"] == "progress" and e["unit"] == "steps")
    }


def _pace(steps_: Mapping[int, float]) -> float:
    times = sorted(steps_.values())
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0


def eventless(job: str, record: Record, submission: Submission) -> Try:
    """A run of a job of which only Slurm knows: it found its predecessors missing and went back to the queue, or died before its first word."""
    round, stage = submission.job.split("-", 1)
    position = int(job.partition("_")[2] or 0)
    end = record.end or record.start
    return Try(
        round=int(round[1:]), stage=stage, index=submission.shards[position], id=job, begin=record.start, end=end, ended=STATES.get(record.state, "killed"),
        ranks=1, gpus=0, startup_s=end - record.start, kept_s=0.0, wait_s=max(0.0, record.start - record.submit), exact=True,
    )  # fmt: skip
