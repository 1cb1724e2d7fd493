"""score: which benchmarks are reported, which are chosen by, and what their scores depend on."""

from serl.stages.kind import Stage
from serl.stages.score.spec import Score
from serl.stages.show import Counts, Show

ASKING = (
    "protocol", "max_tokens", "max_problems", "choice_shots", "choice_format", "samples", "temperature",
    "top_p",
)  # fmt: skip


class ScoreShow(Show):
    colour, hatch = "#ffffff", "..."

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        return {}

    def benchmarks(self, section: Score) -> tuple[str, ...]:
        return section.benchmarks

    def validation(self, section: Score) -> tuple[str, ...]:
        return section.validation

    def asking(self, section: Score) -> dict[str, str]:
        return {key: str(getattr(section, key)) for key in ASKING}


SHOW = ScoreShow()
