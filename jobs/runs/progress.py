"""How far a run is: manifests say what is done, events how the rest is going. One look serves the live table and `jobs.status`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jobs.plan.chain import job_name, steps
from serl.run.events import parsed
from serl.run.rundir import Manifest, Run, Shard

LOOK_S = 1.0
TAIL_BYTES = 8192
ENDS = ("done", "stopped", "failed", "halted")  # kinds of a last event
COLUMNS = (("job", "left"), ("shards", "right"), ("", "left"), ("rate", "right"), ("took, left", "right"))
BAR = 10


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
        return min(
            1.0, (self.shards_done + sum(g.done / g.total for g in self.going if g.total)) / self.num_shards
        )

    def eta_s(self, now: float) -> float | None:
        """Seconds until the last running shard ends, at its pace so far; None before it has one."""
        paces = [
            (g.total - g.done) * (g.last - g.started) / g.done - (now - g.last) for g in self.going if g.done
        ]
        return max(0.0, max(paces)) if paces else None


@dataclass(slots=True)
class Look:
    """Successive looks at one run; a manifest once seen is not read again."""

    run: Run
    _seen: dict[Shard, Manifest] = field(default_factory=dict)

    def __call__(self, *, live: bool = True) -> list[StageState]:
        """`live`: somebody runs it; else a shard without an end is not at work but interrupted."""
        files = self._event_files() if live else {}
        states = []
        for round, stage in steps(self.run.config):
            shards = self.run.shards(round, stage)
            done = [m for s in shards if (m := self._manifest(s))]
            going = [
                g
                for s in shards
                if s not in self._seen and (g := _going(files.get((round, stage, s.index), ())))
            ]
            counts: dict[str, float] = {}
            for m in done:
                counts |= {k: counts.get(k, 0) + v for k, v in m.counts.items()}
            states.append(
                StageState(
                    name=job_name(round, stage), shards_done=len(done), num_shards=len(shards), going=tuple(going), counts=counts,
                    seconds=max((m.seconds for m in done), default=0.0),
                )
            )  # fmt: skip
        return states

    def _manifest(self, shard: Shard) -> Manifest | None:
        if shard not in self._seen and (manifest := self.run.manifest(shard)):
            self._seen[shard] = manifest
        return self._seen.get(shard)

    def _event_files(self) -> dict[tuple[int, str, int], list[Path]]:
        """The event files of rank 0 for each shard, one to an attempt."""
        found: dict[tuple[int, str, int], list[Path]] = {}
        for path in (self.run.root / "events").iterdir():
            stage, round, index, *attempt = path.stem.split("-")
            if attempt[-1] == "0":
                found.setdefault((int(round[1:]), stage, int(index)), []).append(path)
        return found


def _going(files: Sequence[Path]) -> Going | None:
    """What the newest attempt last said of its progress, unless it has ended."""
    if not files:
        return None
    path = max(files, key=lambda p: p.stat().st_mtime)
    with open(path, "rb") as f:
        first = parsed(f.readline())
        f.seek(max(0, path.stat().st_size - TAIL_BYTES))
        tail = [
            event
            for line in f.read().splitlines(keepends=True)
            if line.endswith(b"\n") and (event := parsed(line))
        ]
    if not first or not tail or tail[-1]["kind"] in ENDS:
        return None
    for event in reversed(tail):
        if event["kind"] == "progress":
            return Going(
                done=event["done"],
                total=event["total"],
                unit=event["unit"],
                started=first["time"],
                last=event["time"],
            )
    return Going(done=0, total=0, unit="", started=first["time"], last=first["time"])


def run_eta_s(states: Sequence[StageState], now: float) -> float | None:
    """Seconds until all is done, if each stage lasts as it did in the last round that did it, one after another; None where that is not known."""
    lasted: dict[str, float] = {}
    total = 0.0
    for state in states:
        stage = state.name.partition("-")[2]
        if state.done:
            lasted[stage] = state.seconds
        elif (eta := state.eta_s(now)) is not None and len(
            state.going
        ) == state.num_shards - state.shards_done:
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
        self._states = self._look()
        self._next = time.monotonic() + LOOK_S
        if not self._console.is_terminal:
            for state in self._states:
                if state.done and state.name not in self._said:
                    self._said.add(state.name)
                    self._console.print(
                        f"{state.name} done in {state.seconds:.0f} s: {told(state.counts)}",
                        highlight=False,
                        soft_wrap=True,
                    )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield status_table(self._states, time.time())


def status_table(states: list[StageState], now: float) -> Table:
    """One line for each stage. What is said of it at the end gets what the other columns leave, and is all that a narrow terminal cuts."""
    table = Table(box=None, pad_edge=False, expand=True)
    for column, justify in COLUMNS:
        table.add_column(column, justify=justify, no_wrap=True)
    table.add_column(_one_line("at work, or done"), ratio=1)
    for state in states:
        rate = sum(g.done / (g.last - g.started) for g in state.going if g.done and g.last > g.started)
        table.add_row(
            state.name, f"{state.shards_done}/{state.num_shards}", f"{'#' * round(BAR * state.fraction):<{BAR}}", f"{rate:.1f}/s" if rate else "",
            span(state.seconds if state.done else state.eta_s(now)), _one_line(told(state.counts) if state.done else _at_work(state.going)),
            style="green" if state.done else "bold" if state.going else "dim",
        )  # fmt: skip
    return table


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _at_work(going: Sequence[Going]) -> str:
    """All shards at work together: a stage may have hundreds."""
    shards: dict[str, list[Going]] = {}
    for g in going:
        shards.setdefault(g.unit if g.total else "", []).append(g)
    return ", ".join(
        (f"{sum(g.done for g in some)}/{sum(g.total for g in some)} {unit}" if unit else "starting")
        + (f" in {len(some)} shards" if len(some) > 1 else "")
        for unit, some in shards.items()
    )


def span(seconds: float | None) -> str:
    """A length of time in the two units that matter; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )


def told(counts: Mapping[str, float], limit: int = 5) -> str:
    """The first few counts of a stage, as a phrase."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_figure(value)}" for name, value in list(counts.items())[:limit]
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value % 1 == 0 else f"{value:.3g}"
