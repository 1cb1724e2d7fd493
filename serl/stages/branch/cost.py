"""branch: groups, of each the rollouts of all states of its answers."""

from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.branch.spec import KIND, Branch
from serl.stages.cost import Cost, Known, cost_of
from serl.stages.kind import Stage


class BranchCost(Cost):
    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        source = KIND.data(stage, config)
        low, high = stage.section.questions
        return (high - low) * cost_of(source.kind).given(source, config, known)

    def samples(self, section: Branch) -> int:
        return section.rollouts

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {"samples": counts.get("steps", 0.0), "tokens": tokens} if items else {}


COST = BranchCost()
