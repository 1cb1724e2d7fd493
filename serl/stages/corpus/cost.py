"""corpus: so many documents."""

from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.cost import Cost, Known
from serl.stages.kind import Stage


class CorpusCost(Cost):

    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        return stage.section.documents

    def size(self, counts: Mapping[str, float]) -> float:
        return counts.get("documents", 1.0)

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {name: counts.get(name, 0.0) for name in ("documents", "tokens")}


COST = CorpusCost()
