"""propose: the funnel's mouth."""

from collections.abc import Mapping

from serl.stages.kind import Stage
from serl.stages.show import Counts, Passage, Show

NO_LOSS = {"items", "accepted", "dropped_shots", "prompts_too_long"}


class ProposeShow(Show):
    colour, hatch = "#d5dee6", ""

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        return {}

    def passages(
        self, stage: Stage, counts: Counts, before: int | None, fates: Mapping[str, int]
    ) -> list[Passage]:
        """From all that was written to what passed the quality rules."""
        lost = {name: int(n) for name, n in counts.items() if name not in NO_LOSS}
        return [
            Passage(name="proposed", count=int(counts.get("items", 0)), lost={}),
            Passage(name="well-formed", count=int(counts.get("accepted", 0)), lost=lost),
        ]


SHOW = ProposeShow()
