"""select: what was chosen, what was left out and why, and whether the gold answers agree."""

from serl.stages.kind import Stage
from serl.stages.show import Counts, Show

AUDITS = {"right": "audited", "new_right": "new_audited"}


class SelectShow(Show):
    colour, hatch = "#e9dfc7", "\\\\"

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        audits = {name: of for name, of in AUDITS.items() if counts.get(of)}
        left_out = {*AUDITS, *AUDITS.values()}
        own = {name: n for name, n in counts.items() if name not in left_out}
        own |= {f"{name}_share": counts.get(name, 0) / counts[of] for name, of in audits.items()}
        return {f"{stage.name}/{name}": n for name, n in own.items()}


SHOW = SelectShow()
