"""What every part of a configuration is made of: strict sections and bounded numbers."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0.0)]
Nucleus = Annotated[float, Field(gt=0.0, le=1.0)]


class Section(BaseModel):
    """A part of a configuration: unknown keys, wrong types and later changes are errors."""

    former: ClassVar[Mapping[str, str]] = {}  # keys of an earlier version, and what to write instead

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
