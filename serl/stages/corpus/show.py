"""corpus: a bar, and the curve of the base model's own training."""

from typing import ClassVar

from serl.stages.kind import Stage
from serl.stages.show import Counts, Show


class CorpusShow(Show):
    colour, hatch = "#ffffff", ""
    steps: ClassVar = {"loss": "loss per token (nats)"}

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        return {}


SHOW = CorpusShow()
