"""Where problems come from: files, Hugging Face datasets, or what the base model's own world wrote."""

from typing import Annotated, Literal

from pydantic import Field

from serl.config.schema import Count, Section


class JsonlProblems(Section):
    """Problems in JSON lines (plain or .gz)."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(description="file, absolute or relative to <data root>/seeds")
    question: str = "question"
    gold: str | None = Field(default=None, description="field of the gold answer, where there is one")


class HubProblems(Section):
    """Problems of a Hugging Face dataset, by hub name or local folder."""

    kind: Literal["dataset"] = "dataset"
    name: str
    split: str = "train"
    question: str = "question"
    gold: str | None = None


class GeneratedProblems(Section):
    """Problems that the corpus stage of round 0 wrote: its `seeds` or its labelled `problems`."""

    kind: Literal["corpus"] = "corpus"
    part: Literal["seeds", "problems"] = "seeds"


Problems = Annotated[JsonlProblems | HubProblems | GeneratedProblems, Field(discriminator="kind")]


class Labelled(Section):
    """Problems to answer when no instructions are proposed: a fresh seeded draw each round."""

    source: Problems
    per_round: Count


def has_gold(source: Problems | None) -> bool:
    """Whether the problems of a source have answers."""
    return source is not None and (isinstance(source, GeneratedProblems) or source.gold is not None)
