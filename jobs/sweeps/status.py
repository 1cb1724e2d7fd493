"""A sweep at one look: how far its trials are. One call to squeue serves all of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from jobs.runs.state import Looks, State
from jobs.shell.screen import say, table
from jobs.sweeps.trials import Sweep, Trial, sweep_dir
from serl.run.rundir import ending
from serl.stages.kind import stage_of

SHOWN = 40  # rows of a table that people read
COLUMNS = ("trial", "state", ">done", ">rounds", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    stage: str
    key: str
    done: bool
    users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A sweep at one moment; `states` has None for trials whose run was not created yet."""

    sweep: Sweep
    folder: Path
    states: tuple[State | None, ...]

    def __iter__(self) -> Iterator[tuple[Trial, State | None, str]]:
        """Each trial with its state, in full and in a word."""
        for trial, state in zip(self.sweep.trials, self.states, strict=True):
            word = state.word if state else "not created"
            early = state and word == "done" and ending(state.run.root)
            yield trial, state, "ended early" if early else word

    @property
    def known(self) -> list[State]:
        return [state for state in self.states if state]

    @property
    def shared(self) -> list[SharedState]:
        users = Counter(key for state in self.known for key in state.run.shared.values())
        found = {}
        for state in self.known:
            done = {s.name: s.done for s in state.stages}
            for name, key in state.run.shared.items():
                found[key] = SharedState(stage=name, key=key, done=done[name], users=users[key])
        return list(found.values())


def glance(sweep: Sweep, data: Path) -> Glance:
    runs = [trial.opened(data) for trial in sweep.trials]
    found = iter(Looks()([run for run in runs if run]))
    states = tuple(next(found) if run else None for run in runs)
    return Glance(sweep=sweep, folder=sweep_dir(data, sweep.name), states=states)


def show_status(seen: Glance, console: Console) -> None:
    rows = [
        [t.id, word, f"{s.fraction:.0%}" if s else "", str(_rounds(s)) if s else "", label]
        for (t, s, word), label in zip(seen, short_labels(seen.sweep.trials))
    ]
    show_rows(COLUMNS, rows, console)
    for line in _troubles(seen):
        say(line, style="red", console=console)
    for state in seen.known:
        if early := ending(state.run.root):
            say(
                f"{state.run.root.name} ended after round {early['round']}: {early['reason']}",
                console=console,
            )
    words = Counter(word for _, _, word in seen)
    told = ", ".join(f"{n} {word}" for word, n in words.items())
    say(f"{seen.sweep.name}: {len(rows)} trials, {told}", console=console)
    if shared := seen.shared:
        done, wanted = sum(s.done for s in shared), sum(s.users for s in shared)
        say(f"shared stages: {done} of {len(shared)} computed, in place of {wanted}", console=console)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """The first rows of a table, and how many there are beyond them."""
    console.print(table(columns, rows[:SHOWN]))
    if len(rows) > SHOWN:
        say(f"... and {len(rows) - SHOWN} more; --json lists all", console=console)


def short_labels(trials: Sequence[Trial]) -> list[str]:
    """What differs, by the last part of each key where that is enough to tell them apart."""
    keys = {key: key.rpartition(".")[2] for t in trials for key in t.overrides}
    tails = Counter(keys.values())
    short = {key: tail if tails[tail] == 1 else key for key, tail in keys.items()}
    return [str(replace(t, overrides={short[k]: v for k, v in t.overrides.items()})) for t in trials]


def _rounds(state: State) -> int:
    """Rounds that are whole."""
    by_round: dict[int, list[bool]] = defaultdict(list)
    for s in state.stages:
        by_round[stage_of(s.name)[0]].append(s.done)
    return sum(all(done) for number, done in by_round.items() if number)


def _troubles(seen: Glance) -> list[str]:
    """What people have to look at: each cause once, however many trials it stops."""
    runs: dict[str, list[str]] = defaultdict(list)
    for state in seen.known:
        held = [
            f"job {q.id} is held and its lane waits behind it ({q.where}); launch the sweep again to replace "
            "it"
            for q in state.activity.queued
            if q.held
        ]
        for cause in (*held, *state.causes()):
            runs[cause].append(state.run.root.name)
    silence = {f"the queue is unknown: {why}" for state in seen.known if (why := state.activity.silence)}
    more = {cause: f" and {len(names) - 3} more" if names[3:] else "" for cause, names in runs.items()}
    return [*silence, *(f"{', '.join(names[:3])}{more[cause]}: {cause}" for cause, names in runs.items())]


def facts(seen: Glance) -> Mapping[str, object]:
    trials = [
        {"id": t.id, "run": t.run, "overrides": dict(t.overrides), "state": word,
         "fraction": round(s.fraction, 4) if s else 0.0, "rounds": _rounds(s) if s else 0,
         "ended": (ending(s.run.root) or {}).get("reason") if s else None,
         "failures": [f"{f['shard']}: {f['reason']}" for f in s.failed] if s else []}
        for t, s, word in seen
    ]  # fmt: skip
    shared = [{"stage": s.stage, "key": s.key, "done": s.done, "users": s.users} for s in seen.shared]
    states = dict(Counter(word for _, _, word in seen))
    found = {"sweep": seen.sweep.name, "folder": str(seen.folder), "states": states}
    return found | {"shared": shared, "trials": trials}
