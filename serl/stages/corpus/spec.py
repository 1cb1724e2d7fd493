"""corpus: the base model's own world: documents, tokenizer, seeds, labelled problems and held-out
benchmarks.
"""

from collections.abc import Iterator, Mapping

from serl.config.base import Corpus, Scratch
from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.stages.kind import Bounds, Kind, Stage, World

BYTES_PER_DOCUMENT = 400


class CorpusKind(Kind):
    """Written once, in round 0, by code alone."""

    section = Corpus
    gives = "documents"
    files = 12

    def base_section(self, base: Section) -> Section | None:
        return base.corpus if isinstance(base, Scratch) else None

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        if stage.phase:
            yield ": it makes the base model's world, in round 0 alone; leave it out of the phase"

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        assert isinstance(stage.section, Corpus)
        return Bounds(files=self.files, bytes=stage.section.documents * BYTES_PER_DOCUMENT)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        base = config.base
        assert isinstance(base, Scratch)
        seed = config.seed if base.seed is None else base.seed
        return {"seed": seed, "corpus": base.corpus, "vocabulary": base.architecture.vocabulary}


KIND = CorpusKind()
