"""curate: what is new, and what the round has room for."""

from collections.abc import Mapping

from serl.stages.kind import Stage
from serl.stages.show import Counts, Passage, Show


class CurateShow(Show):
    colour, hatch = "#ffffff", "xxx"

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        return {}

    def passages(
        self, stage: Stage, counts: Counts, before: int | None, fates: Mapping[str, int]
    ) -> list[Passage]:
        def lost(*reasons: str) -> dict[str, int]:
            return {name: int(counts[name]) for name in reasons if counts.get(name)}

        copies = lost("near_duplicate", "exact_duplicate")
        return [
            Passage(name="novel", count=int(counts.get("novel", 0)), lost=copies),
            Passage(name="kept", count=int(counts.get("kept", 0)), lost=lost("surplus")),
        ]


SHOW = CurateShow()
