"""A sweep before it runs: its trials, what they share, and what that saves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from jobs.costs.forecast import Forecast, forecast
from jobs.costs.loads import site_of
from jobs.plan.chain import plan
from jobs.plan.cluster import Local, Slurm
from jobs.shell.screen import say, table
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft
from jobs.sweeps.status import show_rows
from jobs.sweeps.trials import labels
from serl.config.run import RunConfig


def show_plan(draft: Draft, cluster: Local | Slurm, console: Console) -> dict[str, object]:
    """Returns the same as JSON."""
    first = draft.configs[0]
    told = forecast(first, plan(first, lambda shard: False), cluster, draft.data)
    unit = site_of(cluster, first).unit
    saved = savings(draft.configs, draft.keys, cluster, {j.name: j.hours for j in told.jobs})
    hours = None if any(s.hours is None for s in saved) else sum(s.hours for s in saved)
    left = [sum(len(job.missing) for job in draft.chain(i)) for i in range(len(draft.trials))]
    trials = [
        {"id": t.id, "run": t.run, "overrides": dict(t.overrides), "shards_left": n}
        for t, n in zip(draft.trials, left)
    ]
    shared = [
        {"stage": s.stage, "wanted": s.wanted, "computed": s.computed, "hours_saved": _digits(s.hours)}
        for s in saved
    ]
    told_left = [f"{n} shards" if n else "done" for n in left]
    rows = [[t.id, n, label] for t, n, label in zip(draft.trials, told_left, labels(draft.trials))]
    show_rows(("trial", ">to do", ""), rows, console)
    if saved:
        say("shared before the first RL training", console=console)
        columns = ("stage", ">trials that want it", ">times computed", f">{unit} saved")
        told_hours = ["?" if s.hours is None else f"{s.hours:,.2f}" for s in saved]
        cells = [[s.stage, str(s.wanted), str(s.computed), h] for s, h in zip(saved, told_hours)]
        console.print(table(columns, cells))
    settings = len({t.setting(draft.config.replicate) for t in draft.trials})
    spared = f"{sum(s.spared for s in saved)} stages need not be computed again"
    say(f"{draft.config.name}: {len(trials)} trials of {settings} settings; {spared}", console=console)
    if saved and hours is not None:
        how = _whence(draft, cluster, unit, told)
        say(f"{hours:,.1f} {unit} saved by sharing, {how}", console=console)
    turns = "runs on this machine, one trial after another"
    if isinstance(cluster, Slurm):
        num_lanes = lanes.count(draft.config.cap, draft.configs, cluster)
        whatif = "`python -m jobs.whatif` says when they would be done"
        turns = f"{num_lanes} lanes: that many trials at once; {whatif}"
    say(turns, console=console)
    known = {"sweep": draft.config.name, "trials": trials, "shared": shared}
    return known | {"hours_saved": _digits(hours), "unit": unit}


def _whence(draft: Draft, cluster: Local | Slurm, unit: str, told: Forecast) -> str:
    """What the saved hours come from."""
    if told.jobs:
        return f"as measured in {told.runs} runs of {told.model} on {told.cluster}"
    asked = sum(sum(most_hours(config, cluster).values()) for config in draft.configs)
    most = f"of at most {asked:,.1f} {unit} if every task used its whole time limit"
    return f"{most}; nothing was measured here yet"


def _digits(hours: float | None) -> float | None:
    return None if hours is None else round(hours, 4)


# ------------------------------------------------------------------------------------------- savings
@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """A stage that trials want, in how many versions; hours saved, None where nobody knows."""

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
    wanted: dict[str, list[str]] = defaultdict(list)
    some: dict[str, RunConfig] = {}
    for config, own in zip(configs, keys, strict=True):
        for name, key in own.items():
            wanted[name].append(key)
            some.setdefault(name, config)
    found = []
    for name, every in wanted.items():
        each = (measured or {}).get(name, most_hours(some[name], cluster).get(name))
        computed = len(set(every))
        hours = None if each is None else (len(every) - computed) * each
        found.append(Saving(stage=name, wanted=len(every), computed=computed, hours=hours))
    return found


def most_hours(config: RunConfig, cluster: Local | Slurm) -> dict[str, float]:
    """Of each job, if every task used its whole time limit; of none where there is no limit."""
    if isinstance(cluster, Local):
        return {}
    paid = site_of(cluster, config).paid
    return {s.job: cluster.resources(s).time_min / 60 * paid[s.name] * s.num_shards for s in config.stages}
