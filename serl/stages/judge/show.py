"""judge: how often scores put a right answer before a wrong one, and how right the best of n is by them."""

from serl.stages.kind import Stage
from serl.stages.show import Counts, Show

PAIRS = {"agreed": "pairs", "gold_pairs_right": "gold_pairs", "pairs_right": "told_apart"}


class JudgeShow(Show):
    colour, hatch = "#c9d6c3", "//"

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        shares = {name: (counts[name], counts.get(of, 0)) for name, of in PAIRS.items() if name in counts}
        asked = counts.get("questions", 0)
        shares |= {
            name: (n, asked) for name, n in counts.items()
            if name.endswith("_right") and name not in PAIRS or name.startswith("best_of_")
        }  # fmt: skip
        return {f"{stage.name}/{name}": n / of for name, (n, of) in shares.items() if of}


SHOW = JudgeShow()
