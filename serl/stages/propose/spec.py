"""propose: few-shot self-instruction. A policy continues numbered lists of known problems with problems of
its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from serl.config.engine import Sampling
from serl.config.run import RunConfig
from serl.config.schema import Count, Natural
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, POLICY, Bounds, Kind, Stage, StageSection, World
from serl.text.problems import check_source, source_files


class Propose(StageSection):
    """Few-shot self-instruction."""

    role: str = Field(default=POLICY, description="who writes")
    shards: Count
    prompts: Count = Field(
        description="generation prompts in a round, over all shards; each yields a numbered list"
    )
    seed_shots: Count = 6
    kept_shots: Natural = Field(
        default=2, description="shots from instructions that passed the difficulty filter in earlier rounds"
    )
    sampling: Sampling
    part_prompts: Count = Field(default=256, description="prompts whose results are committed together")


class ProposeKind(Kind):
    section = Propose
    gives = "candidates"
    engine = "vllm"
    wants_reader = "like curate"

    def num_shards(self, section: Propose) -> int:
        return section.shards

    def uses(self, section: Propose) -> tuple[str, ...]:
        return (section.role,)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        """The weights, and the trainings that say which earlier instructions were kept: the last one waits
        for all.
        """
        last = config.trained(stage, stage.section.role)
        judged = config.judged(last.round) if last else None
        return tuple(s for s in (last, judged) if s)

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        if config.seeds is None:
            yield ": needs seed problems; give a source under `seeds`"

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        wanted = {f"{stage.name}.seed_shots": stage.section.seed_shots}
        check_source(config.seeds, data, wanted, config.answers)

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        tokens = stage.section.prompts * stage.section.sampling.max_tokens
        size = tokens * BYTES_PER_SAMPLED_TOKEN
        return Bounds(tokens=tokens, files=self.files * stage.num_shards, bytes=size, temporary_bytes=size)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        return {
            "seed": config.seed, "base": config.base, "section": stage.section, "seeds": config.seeds,
            "prompts": config.prompts.model_dump(include={"propose_system", "propose_opening", "template"}),
            "quality": config.quality, "answers": config.answers.model_dump(),
            "engine": config.engine,
        }  # fmt: skip

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        return source_files(config.seeds, data)


KIND = ProposeKind()
