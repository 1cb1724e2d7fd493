"""curate: from candidates to those that are new."""

import math
from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.cost import Cost, Known, cost_of
from serl.stages.kind import Stage


class CurateCost(Cost):

    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        (source,) = stage.kind.reads(stage, config)
        return cost_of(source.kind).given(source, config, known)

    def given(self, stage: Stage, config: RunConfig, known: Known) -> float:
        new = self.items(stage, config, known) * known.rate(stage, "novel", "candidates", 1.0)
        return float(min(stage.section.max_instructions, math.floor(new)))

    def size(self, counts: Mapping[str, float]) -> float:
        return counts.get("candidates", 1.0)

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {name: counts.get(name, 0.0) for name in ("candidates", "novel", "kept")}


COST = CurateCost()
