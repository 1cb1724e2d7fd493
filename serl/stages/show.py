"""What reports and the browser draw of a stage: data and words, for whoever has matplotlib and HTML.

A kind's `show.py` sets `SHOW`. A kind that has none is drawn as a grey bar, and its counts are told as they
are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from serl.config.schema import Section
from serl.stages.kind import Kind, Stage

Counts = Mapping[str, float]  # of all manifests of a stage, added up


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One narrowing of the funnel from questions written to questions learned from: how many came through,
    and why the others did not.
    """

    name: str
    count: int
    lost: Mapping[str, int]


class Show:
    """Of a kind about which nothing is known."""

    colour, hatch = "#e3e3e3", "--"  # of its bars, as matplotlib names them

    # -------------------------------------------------------------------------------- figures of a round
    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        """Figures by name, for tables, CSV and TensorBoard."""
        return {f"{stage.name}/{name}": value for name, value in counts.items()}

    def passages(
        self, stage: Stage, counts: Counts, before: int | None, fates: Mapping[str, int]
    ) -> list[Passage]:
        """Its part of the funnel. `before`: how many questions the last passage let through; `fates`: what
        became of the questions of its groups, where it gives groups.
        """
        return []

    # -------------------------------------------------------------------------------- curves of a training
    steps: Mapping[str, str] = {}  # fields of `step` events that make a curve, and what they are called
    turns: Mapping[str, str] = {}  # likewise of `turn` events
    last: tuple[str, ...] = ()  # fields of the last step, for a table

    # -------------------------------------------------------------------------------- asked of examinations
    def benchmarks(self, section: Section) -> tuple[str, ...]:
        """What a policy is scored on, to be reported."""
        return ()

    def validation(self, section: Section) -> tuple[str, ...]:
        """What a policy is scored on, to choose by."""
        return ()

    def asking(self, section: Section) -> dict[str, str]:
        """Settings, by key, without which a score means nothing."""
        return {}


def show_of(kind: Kind) -> Show:
    """How a kind is drawn."""
    module = kind.module("show")
    return module.SHOW if module else Show()
