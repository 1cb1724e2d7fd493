"""The whole chain before anything runs: configuration and what is done, to jobs and their order. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from evaluation.benchmark import load_benchmark
from serl.config.base import Scratch
from serl.config.run import RunConfig, StageName
from serl.run.rundir import Shard, num_shards, stage_name
from serl.text.problems import generated_rows


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


job_name = stage_name


def stage_of(name: str) -> tuple[int, StageName]:
    """The round and stage that a job name means."""
    found = {job_name(int(name[1:4]), stage): stage for stage in get_args(StageName)}
    return int(name[1:4]), found[name]


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
        jobs.append(
            Job(
                round=round,
                stage=stage,
                missing=missing,
                num_shards=count,
                after=after_of(config, round, stage),
            )
        )
    return jobs


def after_of(config: RunConfig, round: int, stage: StageName) -> tuple[str, ...]:
    """The jobs whose manifests the stage reads first-hand."""
    scratch = isinstance(config.base, Scratch)
    before = [job_name(round - 1, "train")] if round > 1 or (round == 1 and scratch) else []
    match stage:
        case "corpus":
            return ()
        case "propose":
            return (*before, *([job_name(round - 1, "respond")] if round > 1 else []))
        case "curate":
            return (job_name(round, "propose"),)
        case "respond":
            return (*([job_name(round, "curate")] if config.curate else []), *before)
        case "train":
            return (job_name(round, "respond") if round else job_name(0, "corpus"),)
        case "score":
            return (job_name(round, "train"),) if round or scratch else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job writes at most: all samples at full length, nothing filtered. `temporary_bytes` go when the job is done."""

    tokens: int
    files: int
    bytes: int
    temporary_bytes: int = 0


NO_ROWS: Mapping[str, int] = MappingProxyType({})
BYTES_PER_SAMPLED_TOKEN = 12  # int32 id, float32 log-probability, about four characters; before compression
BYTES_PER_DOCUMENT = 400
POLICY_BYTES = 4  # per parameter: published in float32
POLICY_MORE = 2**20, 0.02  # tokenizer and configuration, and what a count from the architecture leaves out
POLICY_FILE_BYTES = 4 * 10**9  # transformers begins a new file before 5 GB
FILES: dict[StageName, int] = {
    "corpus": 12,
    "train": 16,
}  # of a published folder, its manifest included; 3 of other shards
CHECKPOINT_BYTES = 14  # per parameter: float32 master and two Adam moments, and a 16-bit copy


def estimate(config: RunConfig, job: Job, num_parameters: int, rows: Mapping[str, int] = NO_ROWS) -> Estimate:
    """`rows` are those of benchmarks whose description does not tell, by name."""
    share = len(job.missing) / job.num_shards
    tokens = int(_tokens(config, job.stage, rows) * share)
    lasting, temporary = _bytes(config, job, num_parameters)
    sampled = tokens * BYTES_PER_SAMPLED_TOKEN
    files = FILES.get(job.stage, 3) * len(job.missing) + (
        int(lasting * share) // POLICY_FILE_BYTES if job.stage == "train" else 0
    )
    return Estimate(
        tokens=tokens,
        files=files,
        bytes=int(sampled + lasting * share),
        temporary_bytes=int(sampled + temporary * share),
    )


def bytes_needed(estimates: Sequence[Estimate]) -> int:
    """Room for all that stays and the largest of what goes again."""
    return sum(e.bytes for e in estimates) + max((e.temporary_bytes for e in estimates), default=0)


def _tokens(config: RunConfig, stage: StageName, rows: Mapping[str, int] = NO_ROWS) -> int:
    """Tokens that a whole stage samples."""
    match stage:
        case "propose" if config.propose:
            return config.propose.prompts * config.propose.sampling.max_tokens
        case "respond" if config.respond:
            questions = (
                config.curate.max_instructions
                if config.curate
                else config.respond.problems.per_round
                if config.respond.problems
                else 0
            )
            return (
                (questions + config.respond.anchors)
                * config.respond.samples
                * config.respond.sampling.max_tokens
            )
        case "score" if config.score:
            return num_problems(config, rows) * (1 + config.score.samples) * config.score.max_tokens
        case _:
            return 0


def num_problems(config: RunConfig, rows: Mapping[str, int] = NO_ROWS) -> int:
    """Of all that a policy is asked: as the benchmarks' descriptions say; a generated one has what the corpus was told to make."""
    made = generated_rows(config.base.corpus) if isinstance(config.base, Scratch) else {}
    asked = config.score.asked if config.score else ()
    counts = [(b := load_benchmark(name)).num_rows or made.get(b.file) or rows.get(name, 0) for name in asked]
    return sum(min(n, config.score.max_problems or n) for n in counts if config.score)


def _bytes(config: RunConfig, job: Job, num_parameters: int) -> tuple[int, int]:
    """(lasting, temporary) bytes of a whole stage beside its sampled tokens."""
    match job.stage:
        case "corpus" if isinstance(config.base, Scratch):
            return config.base.corpus.documents * BYTES_PER_DOCUMENT, 0
        case "curate":  # every candidate's fate, and the text of those that stay
            return _tokens(config, "propose") * BYTES_PER_SAMPLED_TOKEN, 0
        case "train":
            settings = (
                config.base.train if job.round == 0 and isinstance(config.base, Scratch) else config.train
            )
            assert settings is not None, "a train job is planned only for runs that train"
            more, share = POLICY_MORE
            return int(
                more + (1 + share) * num_parameters * POLICY_BYTES
            ), num_parameters * CHECKPOINT_BYTES * (settings.keep_checkpoints + 1)
        case _:
            return 0, 0
