"""How far a run is: manifests say what is done, events how the rest is going.

One look serves the live table of a launcher and `jobs.status`.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jobs.shell.screen import cut, say, table
from serl.run.events import parsed
from serl.run.rundir import Manifest, Run, Shard
from serl.stages.kind import Stage, stage_of

LOOK_S = 1.0
TAIL_BYTES = 8192
ENDS = ("done", "stopped", "failed", "halted")  # kinds of a last event
COLUMNS = ("job", ">shards", "", ">rate", ">took, left", "at work, or done")
BAR = 10
EventFiles = Mapping[tuple[int, str, int], Sequence[tuple[Path, str, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """A shard at work: what its newest attempt last said."""

    done: int
    total: int
    unit: str
    started: float
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """One line of the table."""

    name: str
    shards_done: int
    num_shards: int
    going: tuple[Going, ...]
    seconds: float
    counts: Mapping[str, float]

    @property
    def done(self) -> bool:
        return self.shards_done == self.num_shards

    @property
    def fraction(self) -> float:
        """Share of the work that is done, shards at work counted by what they say."""
        under_way = sum(g.done / g.total for g in self.going if g.total)
        return min(1.0, (self.shards_done + under_way) / self.num_shards)

    @property
    def rate(self) -> float:
        return sum(g.done / (g.last - g.started) for g in self.going if g.done and g.last > g.started)

    def eta_s(self, now: float) -> float | None:
        """Seconds until the last running shard ends, at its pace so far; None before it has one."""
        paced = [g for g in self.going if g.done]
        left = ((g.total - g.done) * (g.last - g.started) / g.done - (now - g.last) for g in paced)
        return max(0.0, *left) if paced else None


@dataclass(slots=True)
class Look:
    """Successive looks at one run; a manifest once seen is not read again."""

    run: Run
    _seen: dict[Shard, Manifest] = field(default_factory=dict)

    def __call__(self, *, live: bool = True) -> list[StageState]:
        """`live`: somebody runs it; else a shard without an end is not at work but interrupted."""
        files = event_files(self.run.root) if live else {}
        return [self._stage(stage, files) for stage in self.run.config.stages]

    def _stage(self, stage: Stage, files: EventFiles) -> StageState:
        shards = self.run.shards(stage.round, stage.name)
        self._seen |= {s: m for s in shards if s not in self._seen and (m := self.run.manifest(s))}
        done = [self._seen[s] for s in shards if s in self._seen]
        others = (s for s in shards if s not in self._seen)
        going = (_going(files.get((s.round, s.stage, s.index), ())) for s in others)
        return StageState(
            name=stage.job,
            shards_done=len(done),
            num_shards=len(shards),
            going=tuple(filter(None, going)),
            seconds=max((m.seconds for m in done), default=0.0),
            counts=summed(done),
        )


def summed(manifests: Sequence[Manifest]) -> dict[str, float]:
    """The counts of several shards together, in the order in which they first stand."""
    total: dict[str, float] = {}
    for manifest in manifests:
        total |= {k: total.get(k, 0) + n for k, n in manifest.counts.items()}
    return total


def event_files(root: Path) -> EventFiles:
    """(path, attempt, rank) of each event file, by (round, stage, shard); one listing of the folder."""
    found: dict[tuple[int, str, int], list[tuple[Path, str, int]]] = defaultdict(list)
    for path in sorted((root / "events").glob("*.jsonl")):
        stage, round, index, *attempt = path.stem.split("-")
        if attempt and attempt[-1].isdigit():
            told = path, "-".join(attempt[:-1]), int(attempt[-1])
            found[int(round[1:]), stage, int(index)].append(told)
    return found


def _going(files: Sequence[tuple[Path, str, int]]) -> Going | None:
    """What rank 0 of the newest attempt last said of its progress, unless it has ended."""
    paths = [path for path, _, rank in files if rank == 0]
    if not paths:
        return None
    path = max(paths, key=lambda p: p.stat().st_mtime)
    with open(path, "rb") as f:
        first = parsed(f.readline())
        f.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = f.read().splitlines(keepends=True)
    tail = [event for line in lines if line.endswith(b"\n") and (event := parsed(line))]
    if not first or not tail or tail[-1]["kind"] in ENDS:
        return None
    said = next((event for event in reversed(tail) if event["kind"] == "progress"), None)
    told = {k: said[k] for k in ("done", "total", "unit")} if said else {"done": 0, "total": 0, "unit": ""}
    return Going(**told, started=first["time"], last=(said or first)["time"])


def run_eta_s(states: Sequence[StageState], now: float) -> float | None:
    """Seconds until all is done, if each stage lasts as it did before, one after another, where known."""
    lasted: dict[str, float] = {}
    total = 0.0
    for state in states:
        _, stage = stage_of(state.name)
        whole = len(state.going) == state.num_shards - state.shards_done
        if state.done:
            lasted[stage] = state.seconds
        elif whole and (eta := state.eta_s(now)) is not None:
            total += eta
        elif stage in lasted:
            total += lasted[stage] * (1.0 - state.fraction)
        else:
            return None
    return total


class Board:
    """The live table of a launcher; on something that is not a terminal, one line as each stage ends."""

    def __init__(self, run: Run, console: Console):
        self._look, self._console = Look(run), console
        self._states: list[StageState] = []
        self._next = 0.0
        self._said: set[str] = set()

    def look(self, *, force: bool = False) -> None:
        if not force and time.monotonic() < self._next:
            return
        self._states, self._next = self._look(), time.monotonic() + LOOK_S
        for state in () if self._console.is_terminal else self._states:
            if state.done and state.name not in self._said:
                self._said.add(state.name)
                line = f"{state.name} done in {state.seconds:.0f} s: {told(state.counts)}"
                say(line, console=self._console)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield status_table(self._states, time.time())


def status_table(states: Sequence[StageState], now: float) -> Table:
    """One line for each stage; a narrow terminal cuts nothing but what is said of it at the end."""
    return table(COLUMNS, (_row(state, now) for state in states), folds=COLUMNS[-1:])


def _row(state: StageState, now: float) -> list[Text]:
    style = "green" if state.done else "bold" if state.going else "dim"
    cells = (
        state.name,
        f"{state.shards_done}/{state.num_shards}",
        bar(state.fraction, BAR),
        f"{state.rate:.1f}/s" if state.rate else "",
        span(state.seconds if state.done else state.eta_s(now)),
        told(state.counts) if state.done else _at_work(state.going),
    )
    return [cut(cell, style) for cell in cells]


def bar(fraction: float, width: int) -> str:
    return f"{'#' * round(width * fraction):<{width}}"


def _at_work(going: Sequence[Going]) -> str:
    """All shards at work together: a stage may have hundreds."""
    by_unit: dict[str, list[Going]] = defaultdict(list)
    for g in going:
        by_unit[g.unit if g.total else ""].append(g)
    return ", ".join(_together(unit, several) for unit, several in by_unit.items())


def _together(unit: str, going: Sequence[Going]) -> str:
    done, total = sum(g.done for g in going), sum(g.total for g in going)
    said = f"{done}/{total} {unit}" if unit else "starting"
    return f"{said} in {len(going)} shards" if len(going) > 1 else said


def span(seconds: float | None) -> str:
    """A length of time in the two units that matter; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def told(counts: Mapping[str, float], limit: int = 5) -> str:
    """The first few counts of a stage, as a phrase."""
    shown = list(counts.items())[:limit]
    return ", ".join(f"{name.replace('_', ' ')} {n:{',.0f' if n % 1 == 0 else '.3g'}}" for name, n in shown)
