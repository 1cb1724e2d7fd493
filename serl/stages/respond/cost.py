"""respond: questions, of each so many answers."""

from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.cost import Cost, Known, cost_of
from serl.stages.kind import Stage
from serl.stages.respond.spec import KIND, Respond


class RespondCost(Cost):
    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        return self.given(stage, config, known) + stage.section.anchors

    def given(self, stage: Stage, config: RunConfig, known: Known) -> float:
        source = KIND.asked(stage, config)
        return (
            cost_of(source.kind).given(source, config, known) if source else stage.section.problems.per_round
        )

    def samples(self, section: Respond) -> int:
        return section.samples

    def longest(self, section: Respond) -> int:
        return section.sampling.max_tokens

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {"samples": items * stage.section.samples, "tokens": tokens} if items else {}


COST = RespondCost()
