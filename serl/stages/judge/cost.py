"""judge: groups or pairs, of each the tokens of all answers, read once."""

from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.cost import Cost, Known, cost_of
from serl.stages.judge.spec import KIND
from serl.stages.kind import Stage


class JudgeCost(Cost):
    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        source = KIND.data(stage, config)
        low, high = stage.section.questions
        return (high - low) * cost_of(source.kind).given(source, config, known)

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {"samples": counts.get("texts", 0.0), "tokens": tokens} if items else {}


COST = JudgeCost()
