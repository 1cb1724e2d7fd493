"""A sweep at one look: its plan before it runs, and how far its trials are. One call to squeue serves all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.costs.forecast import forecast
from jobs.costs.loads import site_of
from jobs.plan.chain import plan
from jobs.plan.cluster import Local, Slurm
from jobs.runs.shared import Saving, most_hours, savings
from jobs.runs.state import Looks, State
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft
from jobs.sweeps.trials import Sweep, Trial, sweep_dir
from serl.run.rundir import Run, ending

SHOWN = 40  # rows of a table that people read


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A sweep at one moment; `states` has None for trials whose run was not created yet. `shared`: by key, the stage's name, users, and whether it is done."""

    sweep: Sweep
    folder: Path
    states: tuple[State | None, ...]
    shared: Mapping[str, "SharedState"]

    def word(self, trial: Trial, state: State | None) -> str:
        if state is None:
            return "not created"
        return "ended early" if ending(state.run.root) and state.word == "done" else state.word


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    stage: str
    users: int
    done: bool


def glance(sweep: Sweep, data: Path) -> Glance:
    roots = [data / "runs" / t.run for t in sweep.trials]
    runs = [Run.open(root) if (root / "run.json").is_file() else None for root in roots]
    found = iter(Looks()([run for run in runs if run]))
    states = tuple(next(found) if run else None for run in runs)
    users = Counter(key for run in runs if run for key in run.shared.values())
    shared = {
        key: SharedState(
            stage=name, users=users[key], done=next(s.done for s in state.stages if s.name == name)
        )
        for state in states
        if state
        for name, key in state.run.shared.items()
    }
    return Glance(sweep=sweep, folder=sweep_dir(data, sweep.name), states=states, shared=shared)


def show_status(seen: Glance, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column, justify in (
        ("trial", "left"),
        ("state", "left"),
        ("done", "right"),
        ("rounds", "right"),
        ("", "left"),
    ):
        table.add_column(
            column, justify=justify, no_wrap=column != "", overflow="fold", min_width=len(column)
        )
    rows = list(zip(seen.sweep.trials, seen.states, strict=True))
    labels = short_labels(seen.sweep.trials)
    for (trial, state), label in zip(rows[:SHOWN], labels, strict=False):
        done = f"{state.fraction:.0%}" if state else ""
        table.add_row(trial.id, seen.word(trial, state), done, str(_rounds(state)) if state else "", label)
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more; --json lists all", highlight=False)
    for line in _troubles(seen):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for state in seen.states:
        if state and (early := ending(state.run.root)):
            console.print(
                f"{state.run.root.name} ended after round {early['round']}: {early['reason']}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    words = Counter(seen.word(t, s) for t, s in rows)
    console.print(
        f"{seen.sweep.name}: {len(rows)} trials, " + ", ".join(f"{n} {word}" for word, n in words.items()),
        markup=False,
        highlight=False,
    )
    if seen.shared:
        done = sum(s.done for s in seen.shared.values())
        wanted = sum(s.users for s in seen.shared.values())
        console.print(
            f"shared stages: {done} of {len(seen.shared)} computed, in place of {wanted}",
            markup=False,
            highlight=False,
        )


def short_labels(trials: Sequence[Trial]) -> list[str]:
    """What differs, by the last part of each key where that is enough to tell them apart."""
    keys = {key for t in trials for key in t.overrides}
    tails = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: tail if tails[tail := key.rpartition(".")[2]] == 1 else key for key in keys}
    return [str(replace(t, overrides={short[k]: v for k, v in t.overrides.items()})) for t in trials]


def _rounds(state: State) -> int:
    """Rounds that are whole."""
    by_round: dict[int, bool] = {}
    for s in state.stages:
        number = int(s.name[1:4])
        by_round[number] = by_round.get(number, True) and s.done
    return sum(done for number, done in by_round.items() if number)


def _troubles(seen: Glance) -> list[str]:
    """What people have to look at: each cause once, however many trials it stops."""
    lines: dict[str, list[str]] = {}
    for state in filter(None, seen.states):
        for q in state.activity.queued:
            if q.held:
                lines.setdefault(
                    f"job {q.id} is held and its lane waits behind it ({q.where}); launch the sweep again to replace it",
                    [],
                ).append(state.run.root.name)
        for cause in state.causes():
            lines.setdefault(cause, []).append(state.run.root.name)
    silence = {f"the queue is unknown: {s.activity.silence}" for s in seen.states if s and s.activity.silence}
    return [
        *silence,
        *(
            f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}: {line}"
            for line, names in lines.items()
        ),
    ]


def facts(seen: Glance) -> dict[str, object]:
    trials = [
        {"id": t.id, "run": t.run, "overrides": dict(t.overrides), "state": seen.word(t, s), "fraction": round(s.fraction, 4) if s else 0.0,
         "rounds": _rounds(s) if s else 0, "ended": (ending(s.run.root) or {}).get("reason") if s else None,
         "failures": [f"{f['shard']}: {f['reason']}" for f in s.failed] if s else []}
        for t, s in zip(seen.sweep.trials, seen.states, strict=True)
    ]  # fmt: skip
    shared = [
        {"stage": s.stage, "key": key, "done": s.done, "users": s.users} for key, s in seen.shared.items()
    ]
    states = Counter(str(t["state"]) for t in trials)
    return {
        "sweep": seen.sweep.name,
        "folder": str(seen.folder),
        "states": dict(states),
        "shared": shared,
        "trials": trials,
    }


# ------------------------------------------------------------------------------------------------ before it runs
def show_plan(draft: Draft, cluster: Local | Slurm, console: Console) -> dict[str, object]:
    """Trials, what they share and what that saves; returns the same as JSON."""
    first = draft.configs[0]
    told, unit = (
        forecast(first, plan(first, lambda shard: False), cluster, draft.data),
        site_of(cluster, first).unit,
    )
    saved = savings(draft.configs, draft.keys, cluster, {j.name: j.hours for j in told.jobs})
    left = [_left(draft, i) for i in range(len(draft.trials))]
    console.print(_trials_table(draft, left))
    if len(draft.trials) > SHOWN:
        console.print(f"... and {len(draft.trials) - SHOWN} more; --json lists all", highlight=False)
    if saved:
        console.print(_shared_table(saved, unit))
    hours = None if any(s.hours is None for s in saved) else sum(s.hours for s in saved)
    spared = sum(s.spared for s in saved)
    settings = len({t.setting(draft.config.replicate) for t in draft.trials})
    console.print(
        f"{draft.config.name}: {len(draft.trials)} trials of {settings} settings; {spared} stages need not be computed again",
        highlight=False,
    )
    if saved and hours is not None:
        how = (
            f"as measured in {told.runs} runs of {told.model} on {told.cluster}"
            if told.jobs
            else _at_most(draft, cluster, unit)
        )
        console.print(f"{hours:,.1f} {unit} saved by sharing, {how}", highlight=False, soft_wrap=True)
    match cluster:
        case Slurm():
            n = lanes.count(draft.config.cap, draft.configs, cluster)
            console.print(
                f"{n} lanes: that many trials at once; `python -m jobs.whatif` says when they would be done",
                highlight=False,
                soft_wrap=True,
            )
        case Local():
            console.print("runs on this machine, one trial after another", highlight=False)
    trials = [
        {"id": t.id, "run": t.run, "overrides": dict(t.overrides), "shards_left": n}
        for t, n in zip(draft.trials, left, strict=True)
    ]
    shared = [
        {"stage": s.stage, "wanted": s.wanted, "computed": s.computed, "hours_saved": _digits(s.hours)}
        for s in saved
    ]
    return {
        "sweep": draft.config.name,
        "trials": trials,
        "shared": shared,
        "hours_saved": _digits(hours),
        "unit": unit,
    }


def _left(draft: Draft, number: int) -> int:
    """Shards that are still to do for a trial, as it stands now."""
    root = draft.root(draft.trials[number])
    if (root / "run.json").is_file():
        run = Run.open(root)
        return sum(len(job.missing) for job in plan(run.config, run.done))
    return sum(job.num_shards for job in plan(draft.configs[number], lambda shard: False))


def _trials_table(draft: Draft, left: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column, justify in (("trial", "left"), ("to do", "right"), ("", "left")):
        table.add_column(
            column, justify=justify, no_wrap=column != "", overflow="fold", min_width=len(column)
        )
    for trial, n, label in list(zip(draft.trials, left, short_labels(draft.trials), strict=True))[:SHOWN]:
        table.add_row(trial.id, f"{n} shards" if n else "done", label)
    return table


def _at_most(draft: Draft, cluster: Local | Slurm, unit: str) -> str:
    asked = sum(
        most_hours(c, job.name, cluster) or 0.0 for c in draft.configs for job in plan(c, lambda shard: False)
    )
    return f"of at most {asked:,.1f} {unit} if every task used its whole time limit; nothing was measured here yet"


def _digits(hours: float | None) -> float | None:
    return None if hours is None else round(hours, 4)


def _shared_table(saved: Sequence[Saving], unit: str) -> Table:
    table = Table(title="shared before the first RL training", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "trials that want it", "times computed", f"{unit} saved"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for s in saved:
        table.add_row(s.stage, str(s.wanted), str(s.computed), "?" if s.hours is None else f"{s.hours:,.2f}")
    return table
