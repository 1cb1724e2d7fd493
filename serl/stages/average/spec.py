"""average: a role whose weights follow another's, as their moving average: a teacher that votes."""

from collections.abc import Mapping

from pydantic import Field

from serl.config.run import RunConfig
from serl.config.schema import Fraction
from serl.stages.kind import POLICY, Bounds, Kind, Stage, StageSection, World

BYTES = 4  # of a weight, at most


class Average(StageSection):
    """new = share * weights of `of` + (1 - share) * the average before; the first is `of` itself."""

    role: str = Field(default="teacher", description="whose weights the average is")
    of: str = Field(default=POLICY, description="the role that it follows")
    share: Fraction


class AverageKind(Kind):
    section = Average
    gives = "weights"
    files = 16

    def role(self, section: Average) -> str:
        return section.role

    def uses(self, section: Average) -> tuple[str, ...]:
        return (section.of,)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        found = (config.trained(stage, role) for role in (stage.section.of, stage.section.role))
        return tuple(s for s in found if s)

    def problems(self, stage: Stage, config: RunConfig):
        if stage.section.of == stage.section.role:
            yield f".of {stage.section.of}: an average of itself never moves; name the role that it follows"

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        return Bounds(files=self.files, bytes=world.num_parameters * BYTES)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        return {"base": config.base, "section": stage.section}


KIND = AverageKind()
