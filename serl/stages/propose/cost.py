"""propose: prompts, of each a list of candidates."""

from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.cost import Cost, Known
from serl.stages.kind import Stage
from serl.stages.propose.spec import Propose


class ProposeCost(Cost):
    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        return stage.section.prompts

    def given(self, stage: Stage, config: RunConfig, known: Known) -> float:
        return stage.section.prompts * known.rate(stage, "accepted", "samples", 1.0)

    def longest(self, section: Propose) -> int:
        return section.sampling.max_tokens

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {"samples": items, "tokens": tokens, "accepted": counts.get("accepted", 0.0)} if items else {}


COST = ProposeCost()
