"""A sweep at one look: how far its trials are. One call to squeue serves all of them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jobs.runs.state import Looks, State
from jobs.shell.screen import say, table
from jobs.sweeps.trials import Sweep, Trial, labels, sweep_dir
from serl.run.rundir import ending
from serl.stages.kind import stage_of

SHOWN = 40  # rows of a table that people read
COLUMNS = ("trial", "state", ">done", ">rounds", "")


def look_at(sweep: Sweep, data: Path) -> tuple[dict, list[State]]:
    """What `jobs.sweep status` says as JSON, and the states of all trials whose runs were created."""
    runs = {t.id: run for t in sweep.trials if (run := t.opened(data))}
    states = dict(zip(runs, Looks()(list(runs.values())), strict=True))
    trials = [_trial(t, states.get(t.id)) for t in sweep.trials]
    return {
        "sweep": sweep.name,
        "folder": str(sweep_dir(data, sweep.name)),
        "states": dict(Counter(t["state"] for t in trials)),
        "shared": _shared(list(states.values())),
        "trials": trials,
    }, list(states.values())


def _trial(t: Trial, s: State | None) -> dict:
    known = {"id": t.id, "run": t.run, "overrides": dict(t.overrides)}
    if s is None:
        rest = {"fraction": 0.0, "rounds": 0, "ended": None, "failures": []}
        return known | {"state": "not created"} | rest
    early = ending(s.run.root)
    return known | {
        "state": "ended early" if early and s.done else s.word,
        "fraction": round(s.fraction, 4),
        "rounds": _rounds(s),
        "ended": early["reason"] if early else None,
        "failures": [f"{f['shard']}: {f['reason']}" for f in s.failed],
    }


def _rounds(state: State) -> int:
    """Rounds that are whole."""
    by_round: dict[int, list[bool]] = defaultdict(list)
    for s in state.stages:
        by_round[stage_of(s.name)[0]].append(s.done)
    return sum(all(done) for number, done in by_round.items() if number)


def _shared(states: Sequence[State]) -> list[dict]:
    users = Counter(key for s in states for key in s.run.shared.values())
    found = {}
    for s in states:
        done = {stage.name: stage.done for stage in s.stages}
        for name, key in s.run.shared.items():
            found[key] = {"stage": name, "key": key, "done": done[name], "users": users[key]}
    return list(found.values())


def show_status(sweep: Sweep, facts: dict, states: Sequence[State], console: Console) -> None:
    rows = [
        [t["id"], t["state"], f"{t['fraction']:.0%}", str(t["rounds"]), label]
        for t, label in zip(facts["trials"], labels(sweep.trials))
    ]
    show_rows(COLUMNS, rows, console)
    for line in _troubles(states):
        say(line, style="red", console=console)
    for state in states:
        if early := ending(state.run.root):
            ended = f"{state.run.root.name} ended after round {early['round']}: {early['reason']}"
            say(ended, console=console)
    told = ", ".join(f"{n} {word}" for word, n in facts["states"].items())
    say(f"{sweep.name}: {len(rows)} trials, {told}", console=console)
    if shared := facts["shared"]:
        done, wanted = sum(s["done"] for s in shared), sum(s["users"] for s in shared)
        say(f"shared stages: {done} of {len(shared)} computed, in place of {wanted}", console=console)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """The first rows of a table, and how many there are beyond them."""
    console.print(table(columns, rows[:SHOWN]))
    if len(rows) > SHOWN:
        say(f"... and {len(rows) - SHOWN} more; --json lists all", console=console)


def _troubles(states: Sequence[State]) -> list[str]:
    """What people have to look at: each cause once, however many trials it stops."""
    runs: dict[str, list[str]] = defaultdict(list)
    replace = "launch the sweep again to replace it"
    for state in states:
        held = [q for q in state.activity.queued if q.held]
        waits = [f"job {q.id} is held and its lane waits behind it ({q.where}); {replace}" for q in held]
        for cause in (*waits, *state.causes()):
            runs[cause].append(state.run.root.name)
    silence = {f"the queue is unknown: {why}" for state in states if (why := state.activity.silence)}
    more = {cause: f" and {len(names) - 3} more" if names[3:] else "" for cause, names in runs.items()}
    return [*silence, *(f"{', '.join(names[:3])}{more[cause]}: {cause}" for cause, names in runs.items())]
