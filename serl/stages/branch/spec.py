"""branch: what the states of stored answers are worth, by rollouts from the beginning of each step."""

from collections.abc import Iterator

from pydantic import Field

from serl.config.engine import Engine, Sampling
from serl.config.objectives import Sentences, Splitter, rollout_tokens
from serl.config.run import RunConfig
from serl.config.schema import Count, Positive
from serl.rewards.spec import Majority, RandomReward, Reward, Verified, parts
from serl.stages.kind import POLICY, Bounds, Kind, Stage, StageSection, World
from serl.stages.sources import Part


class Branch(StageSection):
    """Monte-Carlo values of the states between the steps of groups' answers (arXiv 2410.01679)."""

    role: str = Field(default=POLICY, description="who goes on from the states: whose values they are")
    data: str | None = Field(
        default=None, description="the stage whose groups are valued; null: the nearest before"
    )
    questions: Part = (0.0, 1.0)
    shards: Count
    steps: Splitter = Sentences()
    rollouts: Count = Field(default=9, description="from the beginning of each step")
    reward: Reward = Field(
        default=Majority(), description="majority: that of the group's own answers; or verified"
    )
    part_prompts: Count = Field(default=64, description="groups that are committed together")
    limit_s: Positive = Field(default=5.0, description="time limit of one comparison, seconds")
    engine: Engine | None = Field(default=None, description="where it is not to be the run's")


class BranchKind(Kind):
    section = Branch
    gives = "records"
    engine = "vllm"

    def num_shards(self, section: Branch) -> int:
        return section.shards

    def uses(self, section: Branch) -> tuple[str, ...]:
        return (section.role,)

    def held(self, section: Branch, config: RunConfig) -> Engine:
        return section.engine or config.engine

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        return config.source(stage, "groups", stage.section.data)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        found = (self.data(stage, config), config.trained(stage, stage.section.role))
        return tuple(s for s in found if s)

    def sampling(self, stage: Stage, config: RunConfig) -> Sampling:
        """As the answers were sampled that are gone on from."""
        source = self.data(stage, config)
        assert source is not None, "checked with the configuration"
        return source.section.sampling

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        name = stage.section.data
        if self.data(stage, config) is None:
            what = f".data {name}: no stage of that name" if name else ": no stage of the round"
            yield f"{what} before it gives groups; list one, like respond, or name one in data"
        for part in parts(stage.section.reward):
            if not isinstance(part, Majority | Verified | RandomReward):
                yield (
                    f".reward.kind {part.kind}: values are of the vote or of gold answers; use majority or "
                    "verified"
                )

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        """All answers in steps as short as they may be; of rollouts nothing is kept but what they earned."""
        source, section = self.data(stage, config), stage.section
        answers = source.kind.num_questions(source, config) * source.section.samples
        longest = source.section.sampling.max_tokens
        size = answers * section.steps.most_states(longest) * 32
        return Bounds(
            tokens=answers * rollout_tokens(section.steps, section.rollouts, longest),
            files=self.files * stage.num_shards,
            bytes=size,
            temporary_bytes=size,
        )


KIND = BranchKind()
