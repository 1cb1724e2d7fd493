"""What an answer is in a domain, as data: how it is read from a response, and when two are the same.

`judging` does what is said here. An answer's gold may be several texts, one a line: any of them is right.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from evaluation.answers import LEVELS, SURE, Level
from evaluation.thinking import DELIMITERS, Delimiters


class _Answers(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    levels: tuple[Level, ...] = Field(
        default=SURE,
        min_length=1,
        description="how plainly an answer must be said to vote and to earn: boxed, announced, tagged, last",
    )
    thinking: Delimiters = Field(
        default=DELIMITERS,
        description="pairs of texts that stand around thoughts; what is between them is never read for an "
        "answer",
    )

    @field_validator("levels")
    @classmethod
    def _known_order(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        return tuple(level for level in LEVELS if level in levels)


class MathAnswers(_Answers):
    """Numbers and formulas, compared by what they mean."""

    kind: Literal["math"] = "math"


class ChoiceAnswers(_Answers):
    """One of the lettered options that end the question; its letter, or its text."""

    kind: Literal["choice"] = "choice"
    options: Annotated[int, Field(ge=2, le=26)] | None = Field(
        default=None, description="how many a self-made question must have; null: two or more"
    )


class TextAnswers(_Answers):
    """A few words, compared without case, punctuation and articles."""

    kind: Literal["text"] = "text"


class NumberAnswers(_Answers):
    """A number, with or without its unit."""

    kind: Literal["number"] = "number"
    tolerance: float = Field(default=0.0, ge=0.0, lt=1.0, description="a share of the right number")
    within: float = Field(default=0.0, ge=0.0, description="the same as an absolute difference")
    unit: str | None = Field(
        default=None, description="what the right number counts; answers in another unit are converted"
    )


class PythonAnswers(_Answers):
    """What a user's function reads: `(question, response) -> text or None`. Equal texts are one answer, and
    the gold answer is read by the same function.
    """

    kind: Literal["python"] = "python"
    path: str = Field(description="package.module:function, or file.py:function beside the run file")
    text: str | None = Field(
        default=None, description="the file's content, filled in when the run file is read"
    )
    limit_s: float = Field(default=5.0, gt=0.0, description="time limit of one call, seconds")
    memory_mb: int = Field(default=4096, ge=64, description="memory limit of its process")

    @field_validator("path")
    @classmethod
    def _a_function(cls, path: str) -> str:
        return function_path(path)


Answers = Annotated[
    MathAnswers | ChoiceAnswers | TextAnswers | NumberAnswers | PythonAnswers, Field(discriminator="kind")
]


def function_path(path: str) -> str:
    """The same path; raises ValueError where it names no function."""
    module, colon, function = path.rpartition(":")
    if not (colon and module and function.isidentifier()):
        raise ValueError(f"{path!r}: write package.module:function, or file.py:function")
    return path
