"""Where problems come from: files, Hugging Face datasets, or what the base model's own world wrote."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from evaluation.golds import Rule
from serl.config.schema import Count, Fraction, Section


class Fields(Section):
    """Which field of a row holds what; dots go into a nested one: `reward_model.ground_truth`,
    `prompt.0.content`.
    """

    question: str = "question"
    gold: str | None = Field(
        default=None, description="field of the gold answer, or of a list of them, where there is one"
    )
    gold_rule: Rule | None = Field(
        default=None,
        description="what makes a gold answer of that field: after_hashes (GSM8K), last_box (MATH), index "
        "(of an option, from 0), ...; null: what all rows look like",
    )
    choices: str | tuple[str, ...] | None = Field(
        default=None, description="field of the list of options, or the field of each"
    )


class InFile(Section):
    """JSON lines, or by its name a JSON array, CSV, TSV or Parquet; .gz and .zst too."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(description="file, absolute or relative to <data root>/seeds")


class InDataset(Section):
    """A Hugging Face dataset, by hub name or local folder, one that `save_to_disk` wrote too."""

    kind: Literal["dataset"] = "dataset"
    name: str
    config: str | None = Field(default=None, description="of a dataset that has several, like gsm8k's main")
    split: str = "train"


class JsonlProblems(InFile, Fields):
    """Problems in a file."""


class HubProblems(InDataset, Fields):
    """Problems of a Hugging Face dataset."""


class GeneratedProblems(Section):
    """Problems that the corpus stage of round 0 wrote: its `seeds` or its labelled `problems`."""

    kind: Literal["corpus"] = "corpus"
    part: Literal["seeds", "problems"] = "seeds"


class TextFields(Section):
    """Which field of a row holds the question, and which an answer to imitate."""

    question: str = "question"
    answer: str = "answer"


class PairFields(Section):
    """Which field of a row holds what of a pair."""

    question: str = "question"
    better: str = "better"
    worse: str = "worse"
    label: str | None = Field(
        default=None, description="a field that is 1 where `better` is the better one, and 0 where `worse` is"
    )


class JsonlTexts(InFile, TextFields):
    """Answers in a file."""


class HubTexts(InDataset, TextFields):
    """Answers of a Hugging Face dataset."""


class JsonlPairs(InFile, PairFields):
    """Pairs of answers in a file."""


class HubPairs(InDataset, PairFields):
    """Pairs of answers of a Hugging Face dataset."""


Texts = Annotated[JsonlTexts | HubTexts, Field(discriminator="kind")]
Pairs = Annotated[JsonlPairs | HubPairs, Field(discriminator="kind")]
Problems = Annotated[JsonlProblems | HubProblems | GeneratedProblems, Field(discriminator="kind")]


def _some(shares: tuple[float, float]) -> tuple[float, float]:
    if shares[0] >= shares[1]:
        raise ValueError(f"{list(shares)}: no question lies between; write [0.0, 0.15] or the like")
    return shares


Part = Annotated[
    tuple[Fraction, Fraction],
    AfterValidator(_some),
    Field(description="the share of questions (of given pairs) that is looked at, of an order by the seed"),
]


class Labelled(Section):
    """Problems to answer when no instructions are proposed: a fresh seeded draw each round."""

    source: Problems
    per_round: Count


def has_gold(source: Problems | None) -> bool:
    """Whether the problems of a source have answers."""
    return source is not None and (isinstance(source, GeneratedProblems) or source.gold is not None)
