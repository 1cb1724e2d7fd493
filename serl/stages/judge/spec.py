"""judge: what a model says of stored answers: one number each."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serl.config.engine import Engine
from serl.config.objectives import Sentences, Splitter
from serl.config.run import RunConfig
from serl.config.schema import Count, Positive, Section
from serl.stages.kind import POLICY, Bounds, Kind, Stage, StageSection, World
from serl.stages.sources import Part


class Head(Section):
    """The number of a reward model's scalar head, read behind the answer."""

    kind: Literal["head"] = "head"


class Implicit(Section):
    """Free process rewards (arXiv 2412.01981): beta log(p / p_ref), added up over each step of the answer."""

    kind: Literal["implicit"] = "implicit"
    beta: Positive = 0.05
    reference: str = Field(
        default="base", description="what p_ref is of: base, or the last training of a role"
    )
    steps: Splitter = Sentences()
    of: Literal["least", "sum"] = Field(
        default="least", description="an answer's number: its least step's, or the sum of all its tokens"
    )


class Judge(StageSection):
    """The numbers that a model gives the answers of groups, or of pairs."""

    role: str = Field(default="reward", description="who judges: a role that was trained")
    reads: Annotated[Head | Implicit, Field(discriminator="kind")] = Field(
        default=Head(), description="what is read of it; a head where the role was trained with one"
    )
    data: str | None = Field(
        default=None,
        description="the stage whose groups or pairs are judged; null: the nearest before that gives groups",
    )
    questions: Part = (0.0, 1.0)
    shards: Count
    part_prompts: Count = Field(default=256, description="groups, or pairs, that are committed together")
    microbatch_tokens: Count = Field(default=16384, description="padded tokens in one forward pass")
    limit_s: Positive = Field(default=5.0, description="time limit of one comparison with a gold answer, s")

    @model_validator(mode="after")
    def _scores(self) -> Self:
        if self.role == POLICY and isinstance(self.reads, Head):
            raise ValueError(
                f"role {self.role}: the policy has no head of one number a text; name a role that was "
                "trained with one, like reward, or use reads: {kind: implicit}"
            )
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        """Whose weights are read."""
        how = self.reads
        other = (how.reference,) if isinstance(how, Implicit) and how.reference != "base" else ()
        return tuple(dict.fromkeys((self.role, *other)))


class JudgeKind(Kind):
    section = Judge
    gives = "scores"
    engine = "forward"

    def num_shards(self, section: Judge) -> int:
        return section.shards

    def uses(self, section: Judge) -> tuple[str, ...]:
        return section.roles

    def held(self, section: Judge, config: RunConfig) -> Engine:
        """A forward pass is one process's."""
        return config.engine.model_copy(update={"tensor_parallel": 1})

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        name = stage.section.data
        pairs = config.source(stage, "pairs", name) if name else None
        return pairs or config.source(stage, "groups", name)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        trained = (config.trained(stage, role) for role in stage.section.roles)
        return tuple({s.job: s for s in (self.data(stage, config), *trained) if s}.values())

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
