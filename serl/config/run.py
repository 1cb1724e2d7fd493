"""What a run is: the strict, frozen schema of a configuration file.

Nothing here reads a file (see `configfile`), imports torch, or knows where jobs run: a cluster file says *where*, a run file says *what*.
A section exists if and only if its stage is listed in `stages`. Unions are tagged by `kind`.
"""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from serl.config.base import HEAD_SIZES, BaseModelSpec, Scratch
from serl.config.rules import Safety
from serl.config.schema import Count, Fraction, Natural, Nucleus, Positive, Section, Seed
from serl.config.training import Train

StageName = Literal["corpus", "propose", "curate", "respond", "train", "score"]
ROUND_STAGES: tuple[StageName, ...] = ("propose", "curate", "respond", "train", "score")


# ------------------------------------------------------------------------------------------------ problems, generation, reward
class JsonlProblems(Section):
    """Problems in JSON lines (plain or .gz)."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(description="file, absolute or relative to <data root>/seeds")
    question: str = "question"
    gold: str | None = Field(default=None, description="field of the gold answer, where there is one")


class HubProblems(Section):
    """Problems of a Hugging Face dataset, by hub name or local folder."""

    kind: Literal["dataset"] = "dataset"
    name: str
    split: str = "train"
    question: str = "question"
    gold: str | None = None


class GeneratedProblems(Section):
    """Problems that the corpus stage of round 0 wrote: its `seeds` or its labelled `problems`."""

    kind: Literal["corpus"] = "corpus"
    part: Literal["seeds", "problems"] = "seeds"


Problems = Annotated[JsonlProblems | HubProblems | GeneratedProblems, Field(discriminator="kind")]


class Engine(Section):
    """How vLLM holds a policy."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: Count
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0.0,
        description="fixed KV cache; set it on CPUs, where tasks share the memory. null: a share of the memory",
    )
    gpu_memory_utilization: Fraction = 0.9
    tensor_parallel: Count = 1
    eager: bool = Field(default=False, description="no graph capture: faster start, slower tokens")


class Sampling(Section):
    """Sampling parameters of one request."""

    temperature: float = Field(ge=0.0)
    top_p: Nucleus = 1.0
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    max_tokens: Count
    stop: tuple[str, ...] = ()


class Prompts(Section):
    """What the model is asked, for tokenizers with a chat template and without (`plain`); `{question}` is replaced literally."""

    propose_system: str
    propose_opening: str = Field(description="stands before the numbered list of shots")
    respond_system: str | None = None
    respond_user: str
    respond_plain: str

    @field_validator("respond_user", "respond_plain")
    @classmethod
    def _has_question(cls, text: str) -> str:
        if text.count("{question}") != 1:
            raise ValueError(f"{text!r}: write {{question}} exactly once, where the question goes")
        return text


class Quality(Section):
    """Which generated instructions are well-formed; each rejection is counted under its rule's name."""

    min_words: Natural = 4
    max_words: Count = 150
    banned_words: tuple[str, ...] = (
        "image",
        "images",
        "graph",
        "graphs",
        "picture",
        "pictures",
        "file",
        "files",
        "map",
        "maps",
        "draw",
        "plot",
        "go to",
    )
    banned_starts: tuple[str, ...] = ("Write a program",)
    ascii_start: bool = Field(
        default=True, description="the first character must be an ASCII letter, digit, '$' or backslash"
    )


class Propose(Section):
    """Few-shot self-instruction."""

    shards: Count
    prompts: Count = Field(
        description="generation prompts in a round, over all shards; each yields a numbered list"
    )
    seed_shots: Count = 6
    kept_shots: Natural = Field(
        default=2, description="shots from instructions that passed the difficulty filter in earlier rounds"
    )
    sampling: Sampling
    quality: Quality = Quality()
    part_prompts: Count = Field(default=256, description="prompts whose results are committed together")


class Curate(Section):
    """Novelty against seeds, everything kept before, and the batch."""

    max_rouge_l: Fraction = 0.7
    max_instructions: Count


class Majority(Section):
    """1 for answers in the single largest equivalence class; a tie has no winner."""

    kind: Literal["majority"] = "majority"


class Verified(Section):
    """1 for answers equivalent to the gold answer."""

    kind: Literal["verified"] = "verified"


class RandomReward(Section):
    """A fair coin: the null control, which must teach nothing."""

    kind: Literal["random"] = "random"


Reward = Annotated[Majority | Verified | RandomReward, Field(discriminator="kind")]


class Labelled(Section):
    """Problems to answer when no instructions are proposed: a fresh seeded draw each round."""

    source: Problems
    per_round: Count


class Respond(Section):
    """N answers to each instruction, voted and rewarded."""

    shards: Count
    samples: Annotated[int, Field(ge=2)] = 16
    sampling: Sampling
    reward: Reward = Majority()
    anchors: Natural = Field(
        default=0, description="seed problems with gold answered too, to measure the vote; never trained on"
    )
    problems: Labelled | None = Field(
        default=None, description="where instructions come from when `propose` is not a stage"
    )
    limit_s: Positive = Field(
        default=5.0, description="time limit of one answer's parsing or comparison, seconds"
    )
    part_prompts: Count = 64


class Score(Section):
    """Evaluation of a policy: greedy pass@1, and pass@k and maj@k from `samples` samples."""

    shards: Count
    benchmarks: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(
        default=(),
        description="benchmarks to choose by (a round, a sweep's best setting); reported apart, never in a headline",
    )
    max_tokens: Count
    samples: Natural = 0
    temperature: Positive = 1.0
    top_p: Nucleus = 0.95
    choice_shots: Natural = Field(default=5, description="worked examples in multiple-choice prompts")
    protocol: Literal["native", "serl", "qwen25_math"] = Field(
        default="native",
        description="native: the run's prompts; else another project's literal prompts and stops (evaluation/protocols.py)",
    )
    preamble: dict[str, str] = Field(
        default={},
        description="by benchmark, a text before each of its questions, a blank line between: the worked examples of a published protocol",
    )
    choice_format: Literal["auto", "plain"] = Field(
        default="auto",
        description="auto: through the chat template where there is one; plain: the official MMLU-Pro text",
    )
    max_problems: Count | None = Field(
        default=None, description="only the first problems of each benchmark; null: all"
    )
    limit_s: Positive = 5.0
    part_prompts: Count = 256

    @property
    def asked(self) -> tuple[str, ...]:
        """Every benchmark that a policy answers: those that are reported, then those that are chosen by."""
        return self.benchmarks + self.validation


# ------------------------------------------------------------------------------------------------ the run
class RunConfig(Section):
    """One experiment, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    seed: Seed = 0
    rounds: Annotated[int, Field(ge=0, le=999)]
    stages: tuple[StageName, ...] = ROUND_STAGES
    base: BaseModelSpec
    prompts: Prompts
    seeds: Problems | None = None
    engine: Engine
    propose: Propose | None = None
    curate: Curate | None = None
    respond: Respond | None = None
    train: Train | None = None
    score: Score | None = None
    safety: Safety = Safety()

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if problem := next(_incoherences(self), None):
            raise ValueError(problem)
        return self

    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))


def digest(config: dict) -> str:
    """What every manifest records of a configuration as JSON: two runs with equal digests do the same work."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _incoherences(c: RunConfig):
    """Sentences that say what does not fit together, in the order a reader would fix them."""
    order = [s for s in ROUND_STAGES if s in c.stages]
    if list(c.stages) != order:
        raise_known = ", ".join(order) or "at least one of " + ", ".join(ROUND_STAGES)
        yield f"stages {list(c.stages)}: list each once, in the order {raise_known}"
    for stage in ROUND_STAGES:
        if (getattr(c, stage) is not None) != (stage in c.stages):
            state = (
                "listed in stages but has no section"
                if stage in c.stages
                else "not listed in stages but has a section"
            )
            yield f"{stage} is {state}: a section exists if and only if its stage is listed"
    if ("propose" in c.stages) != ("curate" in c.stages):
        yield "propose and curate need each other: list both or none"
    if "train" in c.stages and "respond" not in c.stages:
        yield "train needs the groups that respond writes: list respond too"
    if c.rounds and "train" not in c.stages:
        yield f"rounds {c.rounds}: without the train stage there is only round 0, the base model; set rounds: 0"
    if c.respond and ("propose" in c.stages) == (c.respond.problems is not None):
        yield "respond.problems: give it if and only if propose is not a stage"
    if c.propose and c.propose.quality.min_words > c.propose.quality.max_words:
        yield "propose.quality: min_words is above max_words: no instruction could pass"
    if c.propose and c.seeds is None:
        yield "seeds: propose needs seed problems; give a source"
    if c.respond:
        yield from _reward_incoherences(c, c.respond)
    if c.score and (twice := sorted({name for name in c.score.asked if c.score.asked.count(name) > 1})):
        yield f"score: {', '.join(twice)} named twice; a benchmark is either reported (score.benchmarks) or chosen by (score.validation)"
    if c.score and (unasked := sorted(set(c.score.preamble) - set(c.score.asked))):
        yield f"score.preamble: {', '.join(unasked)} is not asked; name it in score.benchmarks, or leave its preamble out"
    yield from _engine_incoherences(c)
    if c.base.kind == "scratch":
        yield from _scratch_incoherences(c, c.base)
    uses_corpus = [
        p
        for p in (c.seeds, c.respond and c.respond.problems and c.respond.problems.source)
        if p and p.kind == "corpus"
    ]
    if uses_corpus and c.base.kind != "scratch":
        yield "seeds of kind corpus exist only where base.kind is scratch; give a jsonl or dataset source"


def _engine_incoherences(c: RunConfig):
    room = c.engine.max_model_len
    for stage, longest in (
        ("propose.sampling", c.propose and c.propose.sampling.max_tokens),
        ("respond.sampling", c.respond and c.respond.sampling.max_tokens),
        ("score", c.score and c.score.max_tokens),
    ):
        if longest and longest >= room:
            yield f"{stage}.max_tokens {longest}: engine.max_model_len {room} leaves no room for a prompt; raise it or ask for fewer tokens"
    if c.base.kind == "scratch" and room > c.base.architecture.max_positions:
        yield f"engine.max_model_len {room}: the base model has {c.base.architecture.max_positions} positions (base.architecture.max_positions)"
    if c.respond and c.respond.sampling.temperature == 0.0:
        yield "respond.sampling.temperature 0: equal answers make no vote; use a positive temperature"


def _scratch_incoherences(c: RunConfig, base: Scratch):
    shape = base.architecture
    if (size := shape.hidden / shape.heads) not in HEAD_SIZES:
        sizes = ", ".join(map(str, HEAD_SIZES))
        yield f"base.architecture: hidden {shape.hidden} over {shape.heads} heads is {size:g} each; vLLM needs one of {sizes}"
    if c.seeds and c.seeds.kind == "corpus":
        made = base.corpus.seeds if c.seeds.part == "seeds" else base.corpus.problems
        yield from too_few_seeds(c, made, f"the corpus has {made}")


def too_few_seeds(c: RunConfig, num_seeds: int, source: str):
    """Sentences on what asks for more seed problems than there are."""
    shots, anchors = c.propose.seed_shots if c.propose else 0, c.respond.anchors if c.respond else 0
    for key, wanted in (("propose.seed_shots", shots), ("respond.anchors", anchors)):
        if wanted > num_seeds:
            yield f"{key} {wanted}: {source} seed problems; ask for fewer, or give more"


def _reward_incoherences(c: RunConfig, respond: Respond):
    source = respond.problems.source if respond.problems else None
    if respond.reward.kind == "verified" and not _has_gold(source):
        yield "respond.reward.kind verified needs respond.problems with a gold field"
    if respond.anchors and not _has_gold(c.seeds):
        yield f"respond.anchors {respond.anchors}: the seeds have no gold field; set seeds.gold or anchors: 0"


def _has_gold(source: Problems | None) -> bool:
    return source is not None and (source.kind == "corpus" or source.gold is not None)
