"""The whole chain before anything runs: configuration and what is done, to jobs and their order. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serl.config import RunConfig, Scratch, StageName
from serl.rundir import Shard, num_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage of one round: the shards still to do, and the jobs whose results they read."""

    round: int
    stage: StageName
    missing: tuple[Shard, ...]
    num_shards: int
    after: tuple[str, ...]

    @property
    def name(self) -> str:
        return job_name(self.round, self.stage)


def job_name(round: int, stage: StageName) -> str:
    return f"r{round:03d}-{stage}"


def steps(config: RunConfig) -> Iterator[tuple[int, StageName]]:
    """Every (round, stage) of the run, in the order a single worker would do them. Round 0 is the base model."""
    if isinstance(config.base, Scratch):
        yield 0, "corpus"
        yield 0, "train"
    if config.score:
        yield 0, "score"
    for round in range(1, config.rounds + 1):
        for stage in config.stages:
            yield round, stage


def plan(config: RunConfig, done: Callable[[Shard], bool]) -> list[Job]:
    """The jobs that finish the run. Stages that are done appear with nothing missing, so that a reader sees the whole chain."""
    jobs = []
    for round, stage in steps(config):
        count = num_shards(config, stage)
        shards = (Shard(round=round, stage=stage, index=i, count=count) for i in range(count))
        missing = tuple(s for s in shards if not done(s))
        jobs.append(Job(round=round, stage=stage, missing=missing, num_shards=count, after=_after(config, round, stage)))
    return jobs


def _after(config: RunConfig, round: int, stage: StageName) -> tuple[str, ...]:
    """The jobs whose manifests the stage reads first-hand."""
    scratch = isinstance(config.base, Scratch)
    before = [job_name(round - 1, "train")] if round > 1 or (round == 1 and scratch) else []
    match stage:
        case "corpus":
            return ()
        case "propose":
            return tuple(before)
        case "curate":
            return (job_name(round, "propose"),)
        case "respond":
            return (job_name(round, "curate"),) if config.curate else tuple(before)
        case "train":
            return (job_name(round, "respond") if round else job_name(0, "corpus"),)
        case "score":
            return (job_name(round, "train"),) if round or scratch else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An upper bound of what a job writes: all samples at full length, nothing filtered."""

    tokens: int
    files: int
    bytes: int


BYTES_PER_SAMPLED_TOKEN = 12  # int32 id, float32 log-probability, about four characters; before compression
BYTES_PER_DOCUMENT = 400


def estimate(config: RunConfig, job: Job) -> Estimate:
    tokens, extra_bytes = _volume(config, job.stage)
    share = len(job.missing) / job.num_shards
    return Estimate(
        tokens=int(tokens * share),
        files=3 * len(job.missing),
        bytes=int((tokens * BYTES_PER_SAMPLED_TOKEN + extra_bytes) * share),
    )


def _volume(config: RunConfig, stage: StageName) -> tuple[int, int]:
    """(tokens sampled, other bytes written) of a whole stage."""
    match stage:
        case "propose" if config.propose:
            return config.propose.prompts * config.propose.sampling.max_tokens, 0
        case "respond" if config.respond:
            questions = config.curate.max_instructions if config.curate else config.respond.problems.per_round if config.respond.problems else 0
            return (questions + config.respond.anchors) * config.respond.samples * config.respond.sampling.max_tokens, 0
        case "corpus" if isinstance(config.base, Scratch):
            return 0, config.base.corpus.documents * BYTES_PER_DOCUMENT
        case _:
            return 0, 0
