"""ponder: thinks for a while in parts, and is settled after some rounds."""

from serl.config.schema import Count, Positive
from serl.stages.kind import Kind, StageSection


class Ponder(StageSection):
    shards: Count
    parts: Count
    part_s: Positive
    settled_in: Count


class PonderKind(Kind):
    section = Ponder
    signals = ("settled",)

    def num_shards(self, section: Ponder) -> int:
        return section.shards


KIND = PonderKind()
