"""curate: keep what is new. Novelty is a property of the whole set, hence one task; it fixes ids and
order.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from serl.config.run import RunConfig
from serl.config.schema import Count, Fraction
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, Bounds, Kind, Stage, StageSection, World
from serl.text.problems import check_source, source_files


class Curate(StageSection):
    """Novelty against seeds, everything kept before, and the batch."""

    max_rouge_l: Fraction = 0.7
    max_instructions: Count


class CurateKind(Kind):
    section = Curate
    gives = "problems"
    wants_reader = "like respond"
    reads_from = "candidates"

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        source = config.source(stage, self.reads_from)
        return (source,) if source else ()

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        if config.source(stage, self.reads_from) is None:
            yield ": no stage before it in the round writes candidates; list one that does, like propose"
        if config.seeds is None:
            yield ": needs seed problems; give a source under `seeds`"

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        check_source(config.seeds, data, {}, config.answers)

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        """Every candidate's fate, and the text of those that stay."""
        (source,) = self.reads(stage, config)
        tokens = source.kind.bounds(source, config, world).tokens
        return Bounds(files=self.files, bytes=tokens * BYTES_PER_SAMPLED_TOKEN)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        return {"section": stage.section, "seeds": config.seeds, "answers": config.answers.model_dump()}

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        return source_files(config.seeds, data)


KIND = CurateKind()
