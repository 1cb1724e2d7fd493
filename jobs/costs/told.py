"""What attempts at shards said of themselves: event files, read for accounts (`tries`) and for measurements
(`measured`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from jobs.runs.progress import event_files
from serl.run.events import read_file
from serl.run.rundir import Run

LAST_WORDS = ("done", "stopped", "failed", "hung", "halted")


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

    @property
    def last_word(self) -> Mapping | None:
        return _last_word(self.events)

    @property
    def killed_by_peer(self) -> bool:
        """Whether another rank was there and left without a word: its death is what made this one raise."""
        peers = (self.path.with_stem(f"{self.path.stem[:-1]}{rank}") for rank in range(1, self.ranks))
        return any(p.exists() and (events := read_file(p)) and _last_word(events) is None for p in peers)

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


def told_by(run: Run) -> dict[tuple[int, str, int], list[Told]]:
    """Every attempt at each shard, by round, stage and index."""
    found: dict[tuple[int, str, int], list[Told]] = defaultdict(list)
    for key, files in event_files(run.root).items():
        for path, id, rank in files:
            if rank == 0 and (events := read_file(path)):
                found[key].append(Told(id=id, path=path, events=events))
    return found


def _last_word(events: Sequence[Mapping]) -> Mapping | None:
    return next((e for e in reversed(events) if e["kind"] in LAST_WORDS), None)
