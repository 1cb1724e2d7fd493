"""A run as people see it before anything runs: who reads what, the jobs with what they sample and write, what
runs where, and how long that takes.

Where nothing was measured, tokens, files and bytes are upper bounds and there are no times.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.chain.batch import sbatch_text
from jobs.costs.forecast import Forecast, Interval, JobForecast, forecast, span
from jobs.costs.loads import site_of
from jobs.plan.chain import Job, own_work
from jobs.plan.cluster import Local, Slurm, this_machine
from jobs.plan.memory import share_here
from jobs.plan.method import phase_of, reads
from jobs.plan.preflight import bounds, distinct, world_of
from jobs.shell.screen import say, table
from serl.config.run import RunConfig
from serl.stages.kind import Bounds

METHOD = ("phase", "stage", "kind", "reads", "loads", "trains", "gives")


def show_plan(
    config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path, console: Console
) -> Forecast:
    root = data / "runs" / config.name
    told = forecast(config, jobs, cluster, data)
    console.print(_method(config), "")
    console.print(_jobs(config, jobs, cluster, data, told))
    for line in (told.sentence(), *_kept(config, cluster, data), *_where(config, jobs, cluster, data)):
        say(line, console=console)
    say(f"run directory {root}; configuration {config.digest()}", console=console)
    return told


def _method(config: RunConfig) -> Table:
    """One line for each stage of a phase, as it is in the phase's last round, and at its last milestone."""
    latest = {(s.phase if s.round else "", s.listed, s.milestone > 0): s for s in config.stages}.values()
    rows = [
        (phase_of(config, s), s.name, s.kind.name, ", ".join(reads(config, s)))
        + (", ".join(s.kind.uses(s.section)), s.role or "", s.gives)
        for s in latest
    ]
    return table(METHOD, rows, title=f"{config.name}: who reads what, in the last round of each phase")


def _jobs(
    config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path, told: Forecast
) -> Table:
    """What each job, and all together, will sample, write and take; at most, where that is not known."""
    known, gpus = told.seconds is not None, any(j.gpu_hours for j in told.jobs)
    rows = told.jobs if known else bounds(config, jobs, data)
    shown = [job for job in jobs if (job.missing and not job.along) or not known]

    def cells(several: Sequence[JobForecast | Bounds], took: Interval | None) -> Iterator[str]:
        yield f"{sum(r.tokens for r in several):,}"
        yield f"{sum(r.files for r in several)}"
        yield f"{sum(r.bytes for r in several) / 1e6:.1f}"
        if took:
            yield span(took)
        if gpus:
            yield f"{sum(r.gpu_hours for r in several):,.2f}"

    lines = [
        (job.name, _shards(job, cluster), ", ".join(job.after), *cells([row], row.seconds if known else None))
        for job, row in zip(shown, rows, strict=True)
    ]
    total = ("total", f"{sum(j.num_shards for j in jobs)}", "", *cells(rows, told.seconds))
    most = "" if known else " <="
    columns = ["job", ">shards", "after", f">tokens{most}", f">files{most}", f">MB{most}"]
    columns += [">time [90 %]"] * known + [">GPU-hours"] * gpus
    title = f"{config.name}: round 0 is the base model, then {config.rounds} rounds"
    return table(columns, [*lines, total], title=title)


def _shards(job: Job, cluster: Local | Slurm) -> str:
    if job.along:
        return f"1 by {job.of.listed}"
    match cluster:
        case Local():
            ranks = this_machine(cluster).train_ranks
            return f"1 x {ranks} ranks" if job.of.kind.ranks else str(job.num_shards)
        case Slurm():
            own = cluster.resources(job.of)
            size = f"{own.tasks_per_node} engines" if own.ranks > 1 else "1 task"
            if job.of.kind.ranks and own.ranks > 1:
                size = f"{own.nodes} nodes x {own.tasks_per_node} ranks"
            gpus = f", {own.nodes * own.gpus_per_node} GPUs" if own.gpus_per_node else ""
            return f"{job.num_shards} x {size}{gpus}"


def _kept(config: RunConfig, cluster: Local | Slurm, data: Path) -> Iterator[str]:
    """What each rank of a training has to have room for."""
    world = world_of(config, data)
    for stage in (s for s in distinct(config) if s.kind.ranks):
        match cluster:
            case Local():
                machine = this_machine(cluster)
                ranks, gpu = machine.train_ranks, bool(machine.gpus)
            case Slurm():
                own = cluster.resources(stage)
                ranks, gpu = own.ranks, bool(own.gpus_per_node)
        kept = stage.kind.kept_bytes(stage, config, world, ranks, gpu=gpu)
        if sum(kept.values()):
            each = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in kept.items())
            yield (
                f"each of {ranks} ranks of {stage.job} keeps at least {sum(kept.values()) / 1e9:.2f} GB of "
                f"weights, gradients and optimizer ({each}), beside what passes and vLLM take"
            )


def _where(config: RunConfig, jobs: Sequence[Job], cluster: Local | Slurm, data: Path) -> Iterator[str]:
    """What this machine offers; or the most that Slurm may give, and every script that it gets."""
    match cluster:
        case Local():
            machine = this_machine(cluster)
            names = ", ".join(machine.gpus)
            slots = f"{len(machine.gpus)} GPUs ({names})" if machine.gpus else f"{machine.cores} cores"
            yield f"runs on this machine: {slots}, {machine.slots} shards at once"
            for stage in distinct(config):
                if share := share_here(stage, config, machine, data):
                    each = f"{share.cache_gib:.2f} GiB of keys and values each"
                    yield f"{stage.listed}: {share.engines} engines at once, {each}"
        case Slurm():
            site, own = site_of(cluster, config), own_work(jobs)
            limits = ((cluster.resources(job.of).time_min / 60, job) for job in own)
            hours = sum(limit * site.paid[job.stage] * len(job.missing) for limit, job in limits)
            yield f"at most {hours:,.1f} {site.unit}, if every task used its whole time limit"
            for job in own:
                root = data / "runs" / config.name
                yield f"\n# {job.name}\n{sbatch_text(root, config.digest(), cluster, job)}"
