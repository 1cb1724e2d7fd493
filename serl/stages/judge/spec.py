"""judge: what a reward model says of stored answers: one number each."""

from collections.abc import Iterator, Mapping

from pydantic import Field, field_validator

from serl.config.engine import Engine
from serl.config.run import RunConfig
from serl.config.schema import Count, Positive
from serl.stages.kind import POLICY, Bounds, Kind, Stage, StageSection, World
from serl.stages.sources import Part


class Judge(StageSection):
    """The scores of a reward model for the answers of groups, or of pairs."""

    role: str = Field(default="reward", description="who judges: a role that was trained with a scalar head")
    data: str | None = Field(
        default=None,
        description="the stage whose groups or pairs are judged; null: the nearest before that gives groups",
    )
    questions: Part = (0.0, 1.0)
    shards: Count
    part_prompts: Count = Field(default=256, description="groups, or pairs, that are committed together")
    microbatch_tokens: Count = Field(default=16384, description="padded tokens in one forward pass")
    limit_s: Positive = Field(default=5.0, description="time limit of one comparison with a gold answer, s")

    @field_validator("role")
    @classmethod
    def _scores(cls, role: str) -> str:
        if role == POLICY:
            raise ValueError(
                f"{role}: the policy has no head of one number a text; name a role that was trained with "
                "one, like reward"
            )
        return role


class JudgeKind(Kind):
    section = Judge
    gives = "scores"
    engine = "forward"

    def num_shards(self, section: Judge) -> int:
        return section.shards

    def uses(self, section: Judge) -> tuple[str, ...]:
        return (section.role,)

    def held(self, section: Judge, config: RunConfig) -> Engine:
        """A forward pass is one process's."""
        return config.engine.model_copy(update={"tensor_parallel": 1})

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        name = stage.section.data
        pairs = config.source(stage, "pairs", name) if name else None
        return pairs or config.source(stage, "groups", name)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        found = (self.data(stage, config), config.trained(stage, stage.section.role))
        return tuple(s for s in found if s)

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        name = stage.section.data
        if self.data(stage, config) is None:
            what = f".data {name}: no stage of that name" if name else ": no stage of the round"
            yield f"{what} before it gives groups or pairs; list one, like respond, or name one in data"

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        """A number takes less than the answer that it is of."""
        source = self.data(stage, config)
        size = source.kind.bounds(source, config, world).bytes
        return Bounds(files=self.files * stage.num_shards, bytes=size, temporary_bytes=size)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        return {
            "seed": config.seed, "base": config.base, "section": stage.section,
            "answers": config.answers.model_dump(),
        }  # fmt: skip


KIND = JudgeKind()
