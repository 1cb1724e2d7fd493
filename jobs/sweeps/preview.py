"""A sweep before it runs: its trials, what they share, and when all would be done."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.console import Console

from jobs.costs.forecast import forecast, length
from jobs.plan.chain import plan
from jobs.plan.cluster import Local, Slurm
from jobs.shell.screen import say, table
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft
from jobs.sweeps.status import show_rows
from jobs.sweeps.trials import labels


def show_plan(draft: Draft, cluster: Local | Slurm, console: Console) -> dict[str, object]:
    """Returns the same as JSON."""
    left = [sum(len(job.missing) for job in draft.chain(i)) for i in range(len(draft.trials))]
    told_left = [f"{n} shards" if n else "done" for n in left]
    rows = [[t.id, n, label] for t, n, label in zip(draft.trials, told_left, labels(draft.trials))]
    show_rows(("trial", ">to do", ""), rows, console)
    if shared := savings(draft.keys):
        say("shared before the first RL training", console=console)
        cells = [[name, str(wanted), str(computed)] for name, (wanted, computed) in shared.items()]
        console.print(table(("stage", ">trials that want it", ">times computed"), cells))
    settings = len({t.setting(draft.config.replicate) for t in draft.trials})
    spared = sum(wanted - computed for wanted, computed in shared.values())
    say(
        f"{draft.config.name}: {len(rows)} trials of {settings} settings; {spared} stages need not be "
        "computed again",
        console=console,
    )
    num_lanes, turns = 1, "runs on this machine, one trial after another"
    if isinstance(cluster, Slurm):
        num_lanes = lanes.count(draft.config.cap, draft.configs, cluster)
        turns = f"{num_lanes} lanes: that many trials at once"
    say(turns, console=console)
    first = draft.configs[0]
    told = forecast(first, plan(first, lambda shard: False), cluster, draft.data)
    if told.seconds:
        waves = -(-len(rows) // num_lanes)
        say(f"{length(told.seconds)} for the first trial, and {waves} one after another", console=console)
    trials = [
        {"id": t.id, "run": t.run, "overrides": dict(t.overrides), "shards_left": n}
        for t, n in zip(draft.trials, left)
    ]
    facts = [{"stage": name, "wanted": n, "computed": m} for name, (n, m) in shared.items()]
    return {"sweep": draft.config.name, "trials": trials, "shared": facts}


def savings(keys: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, int]]:
    """By stage that trials share: how many want it, and how often it is computed."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for own in keys:
        for name, key in own.items():
            wanted[name].append(key)
    return {name: (len(every), len(set(every))) for name, every in wanted.items()}
