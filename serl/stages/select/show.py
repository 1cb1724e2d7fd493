"""select: what was chosen, what was left out and why, and whether the gold answers agree."""

from serl.stages.kind import Stage
from serl.stages.show import Counts, Show


class SelectShow(Show):
    colour, hatch = "#e9dfc7", "\\\\"

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        own = {f"{stage.name}/{name}": n for name, n in counts.items() if name not in ("audited", "right")}
        if counts.get("audited"):
            own[f"{stage.name}/right_share"] = counts.get("right", 0) / counts["audited"]
        return own


SHOW = SelectShow()
