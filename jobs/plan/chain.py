"""The whole chain before anything runs: configuration and what is done, to jobs and their order. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from serl.config.run import RunConfig
from serl.run.rundir import Shard
from serl.stages.kind import Bounds, Stage, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage of one round: the shards still to do, and the jobs whose results they read.

    `along`: it needs no process of its own, for a training that is still to be done brings it along the way.
    """

    of: Stage
    missing: tuple[Shard, ...]
    after: tuple[str, ...]
    along: bool = False

    @property
    def round(self) -> int:
        return self.of.round

    @property
    def stage(self) -> str:
        return self.of.name

    @property
    def num_shards(self) -> int:
        return self.of.num_shards

    @property
    def name(self) -> str:
        return self.of.job


def plan(config: RunConfig, done: Callable[[Shard], bool]) -> list[Job]:
    """The jobs of the run, with what is missing of each, so that a reader sees the whole chain."""
    jobs: list[Job] = []
    short: set[str] = set()
    for stage in config.stages:
        count = stage.num_shards
        shards = (Shard(round=stage.round, stage=stage.name, index=i, count=count) for i in range(count))
        missing = tuple(s for s in shards if not done(s))
        if missing:
            short.add(stage.job)
        along = stage.maker != stage.job and stage.maker in short
        after = after_of(config, stage.round, stage.name)
        jobs.append(Job(of=stage, missing=missing, after=after, along=along))
    return jobs


def own_work(jobs: Sequence[Job]) -> list[Job]:
    """Those that need processes of their own; what reads a milestone waits for the training that brings it,
    which is when it comes at the latest.
    """
    by = {job.name: job.of.maker for job in jobs if job.along}
    waits = {job.name: tuple(dict.fromkeys(by.get(name, name) for name in job.after)) for job in jobs}
    return [replace(job, after=waits[job.name]) for job in jobs if not job.along]


def after_of(config: RunConfig, round: int, stage: str) -> tuple[str, ...]:
    """The jobs whose manifests the stage reads first-hand, and the one that says whether its phase is over;
    of what a training publishes along the way, that training.
    """
    own = config.stage(round, stage)
    if own.maker != own.job:
        return (own.maker,)
    found = [*own.kind.reads(own, config), *([teller] if (teller := config.ended_by(own)) else [])]
    return tuple(dict.fromkeys(s.job for s in found))


def bounds_of(config: RunConfig, job: Job, world: World) -> Bounds:
    """What is left of a job writes at most."""
    whole, share = job.of.kind.bounds(job.of, config, world), len(job.missing) / job.num_shards
    return Bounds(
        tokens=int(whole.tokens * share),
        files=int(whole.files * share),
        bytes=int(whole.bytes * share),
        temporary_bytes=int(whole.temporary_bytes * share),
    )
