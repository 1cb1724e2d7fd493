"""score: problems, of each one greedy answer and so many samples."""

from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.stages.cost import Cost, Known
from serl.stages.kind import Stage
from serl.stages.score.spec import KIND, Score


class ScoreCost(Cost):
    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        return KIND.num_problems(stage, config, known.rows)

    def samples(self, section: Score) -> int:
        return 1 + section.samples

    def longest(self, section: Score) -> int:
        return section.max_tokens

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        return {"samples": items * (1 + stage.section.samples), "tokens": tokens} if items else {}


COST = ScoreCost()
