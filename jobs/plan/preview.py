"""A run as people see it before anything runs: who reads what, the jobs with what they sample and write at
most, what runs where, and how long that takes, where a run has been measured.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.chain.batch import sbatch_text
from jobs.costs.forecast import Forecast, JobForecast, forecast
from jobs.plan.chain import Job, own_work
from jobs.plan.cluster import Local, Slurm, room_of, this_machine
from jobs.plan.memory import share_here
from jobs.plan.method import phase_of, reads
from jobs.plan.preflight import bounds, distinct, world_of
from jobs.runs.progress import span
from jobs.shell.screen import say, table
from serl.config.run import RunConfig
from serl.stages.kind import Bounds

METHOD = ("phase", "stage", "kind", "reads", "loads", "trains", "gives")
JOBS = ("job", ">shards", "after", ">tokens <=", ">files <=", ">MB <=")


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
    """What each job, and all together, sample and write at most, and what they take, where that is known."""
    most, known = bounds(config, jobs, data), {job.name: job for job in told.jobs}

    def row(names: Sequence[str], several: Sequence[Bounds], own: JobForecast | None) -> list[str]:
        tokens, files = (f"{sum(getattr(b, of) for b in several):,}" for of in ("tokens", "files"))
        took = (f"{own.gpu_hours:,.2f}", span(own.seconds.median)) if own else ()
        return [*names, tokens, files, f"{sum(b.bytes for b in several) / 1e6:.1f}", *took]

    lines = [
        row((job.name, _shards(config, job, cluster), ", ".join(job.after)), [bound], known.get(job.name))
        for job, bound in zip(jobs, most, strict=True)
    ]
    lines.append(row(("total", str(sum(job.num_shards for job in jobs)), ""), most, told.total))
    title = f"{config.name}: round 0 is the base model, then {config.rounds} rounds"
    columns = (*JOBS, ">GPU-hours", ">time, median") if known else JOBS
    return table(columns, lines, title=title)


def _shards(config: RunConfig, job: Job, cluster: Local | Slurm) -> str:
    if job.along:
        return f"1 by {job.of.listed}"
    room = room_of(cluster, config, job.of)
    size = f"{room.ranks} {'ranks' if job.of.kind.ranks else 'engines'}" if room.ranks > 1 else "1 task"
    nodes = f" on {room.slots} nodes" if isinstance(cluster, Slurm) and room.slots > 1 else ""
    return f"{job.num_shards} x {size}{nodes}" + (f", {room.gpus} GPUs" if room.gpus else "")


def _kept(config: RunConfig, cluster: Local | Slurm, data: Path) -> Iterator[str]:
    """What each rank of a training has to have room for."""
    world = world_of(config, data)
    for stage in (s for s in distinct(config) if s.kind.ranks):
        room = room_of(cluster, config, stage)
        kept = stage.kind.kept_bytes(stage, config, world, room.ranks, gpu=room.gpus > 0)
        if sum(kept.values()):
            each = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in kept.items())
            yield (
                f"each of {room.ranks} ranks of {stage.job} keeps at least {sum(kept.values()) / 1e9:.2f} GB "
                f"of weights, gradients and optimizer ({each}), beside what passes and vLLM take"
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
            own = own_work(jobs)
            rooms = ((job, cluster.resources(job.of), room_of(cluster, config, job.of)) for job in own)
            hours = sum(asked.time_min / 60 * room.gpus * len(job.missing) for job, asked, room in rooms)
            yield f"at most {hours:,.1f} GPU-hours, if every task used its whole time limit"
            for job in own:
                root = data / "runs" / config.name
                yield f"\n# {job.name}\n{sbatch_text(root, config.digest(), cluster, job)}"
