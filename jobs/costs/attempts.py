"""Attempts at shards, by their event files: the pieces that they finished, when and why they ended, and what
of their work survived.

Many are killed and have no last word: their last event or heartbeat tells.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from jobs.runs.progress import event_files
from serl.run.events import read_file
from serl.run.rundir import Manifest, Run, Shard
from serl.stages.kind import Kind

End = Literal["done", "at work", "preempted", "time limit", "killed", "hung", "failed", "cancelled"]
LAST_WORDS = ("done", "stopped", "failed", "hung", "halted")
LEFT = ("preempted", "time limit", "cancelled")
NOTHING_S = 0.01
LAST_MOMENT_S = 15.0
WARNING_S = 300.0  # a job asked to leave with less than this until its end was asked because of its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What an attempt finished: a part, without the time that the engine took to load, or an optimizer step,
    with all that lies between it and the one before.
    """

    number: int
    begin: float
    end: float
    items: int = 0
    tokens: float = 0.0

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the first rank of an attempt said, in order; at least one thing."""

    id: str
    path: Path
    events: Sequence[Mapping]

    @property
    def first(self) -> Mapping:
        return self.events[0]

    @property
    def begin(self) -> float:
        """Birth of its process."""
        return self.first["time"] - self.first.get("boot_s", 0.0)

    @property
    def ranks(self) -> int:
        return self.first.get("ranks", 1)

    @cached_property
    def phases(self) -> list[Mapping]:
        return [e for e in self.events if e["kind"] == "phase"]

    @cached_property
    def parts(self) -> list[Piece]:
        found, load_s = [], 0.0
        for e in self.phases:
            if e["name"].endswith("load"):
                load_s = e["seconds"]
            elif " part " in e["name"]:
                number, begin = int(e["name"].rpartition(" ")[2]), e["time"] - e["seconds"] + load_s
                counts = {"items": e.get("items", 0), "tokens": float(e.get("tokens", 0))}
                found.append(Piece(number=number, begin=begin, end=e["time"], **counts))
                load_s = 0.0
        return found

    @cached_property
    def steps(self) -> list[Piece]:
        """When the first began it does not say: it counts as long as the others on average."""
        said = {e["done"]: e for e in self.events if e["kind"] == "progress" and e.get("unit") == "steps"}
        said |= {e["step"]: e for e in self.events if e["kind"] == "step"}
        done = [(number, said[number]) for number in sorted(said)]
        ends = [e["time"] for _, e in done]
        mean_s = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0
        found = []
        for (begin, end), (number, e) in zip(pairwise([ends[0] - mean_s, *ends] if ends else ()), done):
            tokens = e.get("tokens_per_s", 0.0) * (end - begin)
            found.append(Piece(number=number, begin=begin, end=end, tokens=tokens))
        return found

    @property
    def word(self) -> Mapping | None:
        return _last_word(self.events)

    def ended(self, *, scheduled: bool) -> End | None:
        """Why, as it said itself; None: nobody knows that it has."""
        until, last, word = self.first.get("until", math.inf), self.events[-1]["time"], self.word or {}
        match word.get("kind"):
            case None:
                return "time limit" if last > until - LAST_MOMENT_S else None
            case "halted":
                return "failed"  # safety forbade it: what was spent on it is lost
            case "failed":
                return "killed" if self._peer_was_killed() else "failed"
            case "stopped":
                left_s = word.get("left_s")
                if word.get("asked") is False or (left_s is not None and left_s < WARNING_S):
                    return "time limit"
                return "preempted" if scheduled else "cancelled"  # without a scheduler only a person asks
            case other:
                return other

    def _peer_was_killed(self) -> bool:
        """Whether another rank was there and left without a word: its death is what made this one raise."""
        peers = (self.path.with_stem(f"{self.path.stem[:-1]}{rank}") for rank in range(1, self.ranks))
        return any(p.exists() and (events := read_file(p)) and _last_word(events) is None for p in peers)


def _last_word(events: Sequence[Mapping]) -> Mapping | None:
    return next((e for e in reversed(events) if e["kind"] in LAST_WORDS), None)


def told_by(run: Run) -> dict[tuple[int, str, int], list[Told]]:
    """Every attempt at each shard, by round, stage and index, in their order."""
    found: dict[tuple[int, str, int], list[Told]] = defaultdict(list)
    for key, files in event_files(run.root).items():
        told = [Told(id=id, path=path, events=read_file(path)) for path, id, rank in files if rank == 0]
        found[key] = sorted((t for t in told if t.events), key=lambda t: t.begin)
    return found


# ------------------------------------------------------------------------------------ what came of them
@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """An attempt, all ranks, and what came of it: `kept_s` of its time survived."""

    shard: Shard
    id: str
    begin: float
    end: float
    ended: End
    kept_s: float
    ranks: int = 1
    gpus: int = 0
    nodes: int = 1

    @property
    def job(self) -> str:
        """Slurm's id: an attempt's is that, and how often Slurm had started it before."""
        return self.id.rpartition("-")[0]

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def lost(self) -> tuple[str, float]:
        """Why it lost what it did not keep, and how many seconds."""
        lost_s = self.seconds - self.kept_s
        why = "duplicate" if self.ended in ("done", "at work") else self.ended
        return why, lost_s if lost_s > NOTHING_S else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What is known beside events. `live`: no end is at work; `beats`: when attempts last gave a sign."""

    scheduled: bool
    live: bool
    now: float
    beats: Mapping[str, float]

    def tries(self, shard: Shard, told: Sequence[Told], done: Manifest | None, kind: Kind) -> list[Try]:
        """Of a shard, in their order: a part counts for who committed it first, a step for whose checkpoint
        the next attempt went on from.
        """
        found, committed = list[Try](), set[int]()
        for n, t in enumerate(told, 1):
            won, later = done is not None and done.attempt == t.id, told[n:]
            parts = () if kind.ranks else t.parts
            fresh = [p for p in parts if p.number not in committed]
            committed.update(p.number for p in fresh)
            ended, end = t.ended(scheduled=self.scheduled), self._end(t)
            if ended is None and won:
                ended, end = "done", done.created
            elif ended is None and self.live and not done and not later:
                ended, end = "at work", self.now
            kept_s = sum(p.seconds for p in fresh if p.end <= end + 1.0)
            if won or ended == "at work":  # but for parts that a rival had before
                kept_s = end - t.begin - sum(p.seconds for p in parts if won and p not in fresh)
            elif kind.ranks:
                kept_s = _steps_kept_s(t.steps, later, end, saved=ended in LEFT and t.word is not None)
            end, room = max(end, t.begin), {k: t.first[k] for k in ("gpus", "nodes") if k in t.first}
            kept_s = max(0.0, min(kept_s, end - t.begin))  # clocks differ by node
            known = {"shard": shard, "id": t.id, "begin": t.begin, "ranks": t.ranks} | room
            found.append(Try(**known, end=end, ended=ended or "killed", kept_s=kept_s))
        return found

    def _end(self, t: Told) -> float:
        return t.word["time"] if t.word else max(t.events[-1]["time"], self.beats.get(t.id, 0.0))


def _steps_kept_s(steps: Sequence[Piece], later: Iterable[Told], end: float, *, saved: bool) -> float:
    """Of the optimizer steps that its successor did not have to make again; who `saved` kept the last one."""
    resumed = next((t.steps[0].number - 1 for t in later if t.steps), 0 if later else math.inf)
    kept = [p for p in steps if p.number <= resumed]
    if not kept:
        return 0.0
    return (end if saved and kept == steps else kept[-1].end) - steps[0].begin


def heartbeats(logs: Path) -> dict[str, float]:
    """When each attempt last gave a sign of life, of those whose file nobody has written over since."""
    found = {}
    for path in logs.glob("*/*/heartbeat-*-00000.json"):
        try:
            found[json.loads(path.read_bytes())["attempt"]] = path.stat().st_mtime
        except (json.JSONDecodeError, KeyError):  # caught in the middle of being written
            continue
    return found
