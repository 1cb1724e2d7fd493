"""What attempts at shards said of themselves: event files, read for accounts (`tries`) and for measurements
(`measured`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serl.run.events import read_file
from serl.run.rundir import Run

Key = tuple[int, str, int]  # round, stage, index of a shard
LAST_WORDS = ("done", "stopped", "failed", "hung", "halted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a shard that an attempt committed; its time is without that of loading the engine."""

    name: str
    begin: float
    end: float
    items: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
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

    @property
    def last_word(self) -> Mapping | None:
        return _last_word(self.events)

    @property
    def killed_by_peer(self) -> bool:
        """Whether another rank was there and left without a word: its death is what made this one raise."""
        peers = (self.path.with_stem(f"{self.path.stem[:-1]}{rank}") for rank in range(1, self.ranks))
        return any(p.exists() and (events := read_file(p)) and _last_word(events) is None for p in peers)

    def phases(self) -> Iterator[Mapping]:
        return (e for e in self.events if e["kind"] == "phase")

    def parts(self) -> list[Part]:
        found, load_s = [], 0.0
        for e in self.phases():
            if e["name"].endswith("load"):
                load_s = e["seconds"]
            elif " part " in e["name"]:
                begin, counts = e["time"] - e["seconds"] + load_s, (e.get("items", 0), e.get("tokens", 0))
                found.append(
                    Part(name=e["name"], begin=begin, end=e["time"], items=counts[0], tokens=counts[1])
                )
                load_s = 0.0
        return found

    def steps(self) -> dict[int, Mapping]:
        """What it said of each optimizer step that it made."""
        found = {e["done"]: e for e in self.events if e["kind"] == "progress" and e.get("unit") == "steps"}
        return found | {e["step"]: e for e in self.events if e["kind"] == "step"}


def told_by(run: Run) -> dict[Key, list[Told]]:
    """Every attempt at each shard."""
    found: dict[Key, list[Told]] = defaultdict(list)
    for path in sorted((run.root / "events").glob("*-0.jsonl")):
        stage, round, index, *attempt = path.stem.split("-")
        if events := read_file(path):
            found[int(round[1:]), stage, int(index)].append(
                Told(id="-".join(attempt[:-1]), path=path, events=events)
            )
    return found


def _last_word(events: Sequence[Mapping]) -> Mapping | None:
    return next((e for e in reversed(events) if e["kind"] in LAST_WORDS), None)
