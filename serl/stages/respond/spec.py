"""respond: N answers to each instruction, the vote over them, and their rewards."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from serl.config.engine import ASKED, Sampling
from serl.config.run import RunConfig
from serl.config.schema import Count, Natural, Positive
from serl.rewards.outside import Outside
from serl.rewards.spec import Majority, PythonReward, Reward, judges, needs_gold, parts
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, POLICY, Bounds, Kind, Stage, StageSection, World
from serl.stages.sources import Labelled, has_gold
from serl.text.problems import check_source, source_files


class Respond(StageSection):
    """N answers to each instruction, voted and rewarded."""

    role: str = Field(default=POLICY, description="who answers")
    shards: Count
    samples: Annotated[int, Field(ge=2)] = 16
    sampling: Sampling
    reward: Reward = Majority()
    anchors: Natural = Field(
        default=0, description="seed problems with gold answered too, to measure the vote; never trained on"
    )
    problems: Labelled | None = Field(
        default=None, description="where questions come from when no stage of the round writes instructions"
    )
    limit_s: Positive = Field(
        default=5.0, description="time limit of one answer's parsing or comparison, seconds"
    )
    part_prompts: Count = 64


class RespondKind(Kind):
    section = Respond
    gives = "groups"
    engine = "vllm"

    def num_shards(self, section: Respond) -> int:
        return section.shards

    def uses(self, section: Respond) -> tuple[str, ...]:
        return (section.role,)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        found = (self.asked(stage, config), config.trained(stage, stage.section.role))
        return tuple(s for s in found if s)

    def asked(self, stage: Stage, config: RunConfig) -> Stage | None:
        """The stage whose instructions it answers; None where it draws labelled problems."""
        return None if stage.section.problems else config.source(stage, "problems")

    def num_questions(self, stage: Stage, config: RunConfig) -> int:
        """At most, without anchors."""
        source = self.asked(stage, config)
        return source.section.max_instructions if source else stage.section.problems.per_round

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        section = stage.section
        if (config.source(stage, "problems") is None) == (section.problems is None):
            yield (
                ".problems: give it if and only if no stage of the round writes instructions (propose and "
                "curate)"
            )
        if section.sampling.temperature == 0.0:
            yield ".sampling.temperature 0: equal answers make no vote; use a positive temperature"
        if judges(section.reward):
            yield (
                ".reward.kind model: a stage that samples holds no other model; have a judge score its "
                "answers, or use it in a training's rollout"
            )
        source = section.problems.source if section.problems else None
        if needs_gold(section.reward) and not has_gold(source):
            yield f".reward.kind {section.reward.kind} needs {stage.name}.problems with a gold field"
        if section.anchors and not has_gold(config.seeds):
            yield f".anchors {section.anchors}: the seeds have no gold field; set seeds.gold or anchors: 0"

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        if stage.section.anchors:
            wanted = {f"{stage.name}.anchors": stage.section.anchors}
            check_source(config.seeds, data, wanted, config.answers)
        for part in parts(stage.section.reward):
            if isinstance(part, PythonReward):
                Outside(part).check()
        if stage.section.problems:
            check_source(stage.section.problems.source, data, {}, config.answers)

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        section = stage.section
        questions = self.num_questions(stage, config) + section.anchors
        tokens = questions * section.samples * section.sampling.max_tokens
        size = tokens * BYTES_PER_SAMPLED_TOKEN
        return Bounds(tokens=tokens, files=self.files * stage.num_shards, bytes=size, temporary_bytes=size)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        return {
            "seed": config.seed, "base": config.base, "section": stage.section,
            "seeds": config.seeds if stage.section.anchors else None,
            "prompts": config.prompts.model_dump(include=ASKED), "answers": config.answers.model_dump(),
            "engine": config.engine,
        }  # fmt: skip

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        section = stage.section
        found = source_files(config.seeds, data) if section.anchors else {}
        return found | (source_files(section.problems.source, data) if section.problems else {})


KIND = RespondKind()
