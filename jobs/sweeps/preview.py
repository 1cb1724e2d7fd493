"""A sweep before it runs: its trials, what they share, and what that saves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from jobs.costs.forecast import forecast
from jobs.costs.loads import site_of
from jobs.plan.chain import plan
from jobs.plan.cluster import Local, Slurm
from jobs.shell.screen import say, table
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft
from jobs.sweeps.status import short_labels, show_rows
from serl.config.run import RunConfig
from serl.stages.kind import stage_of


def show_plan(draft: Draft, cluster: Local | Slurm, console: Console) -> dict[str, object]:
    """Returns the same as JSON."""
    first, name = draft.configs[0], draft.config.name
    told = forecast(first, plan(first, lambda shard: False), cluster, draft.data)
    unit = site_of(cluster, first).unit
    saved = savings(draft.configs, draft.keys, cluster, {j.name: j.hours for j in told.jobs})
    left = [_left(draft, i) for i in range(len(draft.trials))]
    labels = zip(draft.trials, left, short_labels(draft.trials))
    rows = [[t.id, f"{n} shards" if n else "done", label] for t, n, label in labels]
    show_rows(("trial", ">to do", ""), rows, console)
    if saved:
        _show_shared(saved, unit, console)
    hours = None if any(s.hours is None for s in saved) else sum(s.hours for s in saved)
    settings = len({t.setting(draft.config.replicate) for t in draft.trials})
    spared = f"{sum(s.spared for s in saved)} stages need not be computed again"
    say(f"{name}: {len(draft.trials)} trials of {settings} settings; {spared}", console=console)
    if saved and hours is not None:
        measured = f"as measured in {told.runs} runs of {told.model} on {told.cluster}"
        how = measured if told.jobs else _at_most(draft, cluster, unit)
        say(f"{hours:,.1f} {unit} saved by sharing, {how}", console=console)
    turns = "runs on this machine, one trial after another"
    if isinstance(cluster, Slurm):
        num_lanes = lanes.count(draft.config.cap, draft.configs, cluster)
        whatif = "`python -m jobs.whatif` says when they would be done"
        turns = f"{num_lanes} lanes: that many trials at once; {whatif}"
    say(turns, console=console)
    trials = [
        {"id": t.id, "run": t.run, "overrides": dict(t.overrides), "shards_left": n}
        for t, n in zip(draft.trials, left)
    ]
    shared = [
        {"stage": s.stage, "wanted": s.wanted, "computed": s.computed, "hours_saved": _digits(s.hours)}
        for s in saved
    ]
    return {"sweep": name, "trials": trials, "shared": shared, "hours_saved": _digits(hours), "unit": unit}


def _left(draft: Draft, number: int) -> int:
    """Shards that are still to do for a trial, as it stands now."""
    run = draft.trials[number].opened(draft.data)
    chain = plan(run.config, run.done) if run else plan(draft.configs[number], lambda shard: False)
    return sum(len(job.missing) for job in chain)


def _at_most(draft: Draft, cluster: Local | Slurm, unit: str) -> str:
    asked = sum(most_hours(c, s.job, cluster) or 0.0 for c in draft.configs for s in c.stages)
    most = f"of at most {asked:,.1f} {unit} if every task used its whole time limit"
    return f"{most}; nothing was measured here yet"


def _digits(hours: float | None) -> float | None:
    return None if hours is None else round(hours, 4)


def _show_shared(saved: Sequence["Saving"], unit: str, console: Console) -> None:
    say("shared before the first RL training", console=console)
    columns = ("stage", ">trials that want it", ">times computed", f">{unit} saved")
    rows = [
        [s.stage, str(s.wanted), str(s.computed), "?" if s.hours is None else f"{s.hours:,.2f}"]
        for s in saved
    ]
    console.print(table(columns, rows))


# ------------------------------------------------------------------------------------------- savings
@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """A stage that trials want, in how many versions, and hours saved; None where neither measured nor
    limited.
    """

    stage: str
    wanted: int
    computed: int
    hours: float | None

    @property
    def spared(self) -> int:
        return self.wanted - self.computed


def savings(
    configs: Sequence[RunConfig],
    keys: Sequence[Mapping[str, str]],
    cluster: Local | Slurm,
    measured: Mapping[str, float] | None = None,
) -> list[Saving]:
    """By stage, with the hours that were measured of it once, or else those that it could take at most."""
    wanted: dict[str, list[str]] = {}
    some: dict[str, RunConfig] = {}
    for config, own in zip(configs, keys, strict=True):
        for name, key in own.items():
            wanted.setdefault(name, []).append(key)
            some.setdefault(name, config)
    found = []
    for name, every in wanted.items():
        each = (measured or {}).get(name, most_hours(some[name], name, cluster))
        computed = len(set(every))
        hours = None if each is None else (len(every) - computed) * each
        found.append(Saving(stage=name, wanted=len(every), computed=computed, hours=hours))
    return found


def most_hours(config: RunConfig, name: str, cluster: Local | Slurm) -> float | None:
    """Of a job of which every task uses its whole time limit; None where there is no limit."""
    if isinstance(cluster, Local):
        return None
    stage = config.stage(*stage_of(name))
    paid = site_of(cluster, config).paid[stage.name]
    return cluster.resources(stage).time_min / 60 * paid * stage.num_shards
