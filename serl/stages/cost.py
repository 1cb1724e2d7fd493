"""What a stage takes and yields, for plans: from its configuration and what is known of stages like it.

A kind's `cost.py` sets `COST`. Amounts are expectations of a whole stage, over all its shards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.stages.kind import Kind, Stage


class Known(Protocol):
    """What was measured."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows of benchmark files, by name."""
        ...

    def rate(self, stage: Stage, top: str, bottom: str, otherwise: float) -> float:
        """One yield of such stages for each of another; `otherwise` where nobody has seen it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A training: optimizer steps, and the tokens in each."""

    steps: int
    step_tokens: float


class Cost:
    """Of a kind without engine that does one thing, of size 1."""


    def items(self, stage: Stage, config: RunConfig, known: Known) -> float:
        """Prompts, questions, problems, documents: what work is counted in."""
        return 1.0

    def given(self, stage: Stage, config: RunConfig, known: Known) -> float:
        """How many records the stage gives."""
        return self.items(stage, config, known)

    def samples(self, section: Section) -> int:
        """Completions of an item."""
        return 1

    def longest(self, section: Section) -> int:
        """Tokens of a completion at most."""
        return 0

    def length(self, stage: Stage, known: Known) -> float:
        """Tokens of a completion."""
        most = self.longest(stage.section)
        return min(known.rate(stage, "tokens", "samples", most), most)

    def lesson(self, stage: Stage, config: RunConfig, known: Known) -> Lesson:
        """Of a kind whose ranks take optimizer steps."""
        raise NotImplementedError(f"{stage.kind.name}: a kind with ranks says in cost.py what it learns")

    def even(self, section: Section) -> bool:
        """Of a kind with ranks, whether its steps follow each other without other work than saving in
        between.
        """
        return True

    def keeps_every(self, section: Section) -> int:
        """Of a kind with ranks, steps from one checkpoint to the next."""
        return section.checkpoint_every

    def size(self, counts: Mapping[str, float]) -> float:
        """Of the one piece of work of a kind without engine, from its manifest."""
        return 1.0

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        """What a published shard of `items` sampled as `tokens` came to: counts whose ratios the next plan
        needs.
        """
        return {"items": 1.0}


def cost_of(kind: Kind) -> Cost:
    """How a kind reckons; one that says nothing does one thing, of size 1."""
    module = kind.module("cost")
    return module.COST if module else Cost()
