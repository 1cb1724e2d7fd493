"""The schema of a sweep file: a base run, what varies over it, and how much of the cluster it may use at
once.

Nothing here knows of clusters or runs; `trials` makes trials of it, and `lanes` places them.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from serl.config.files import ConfigError, read, validate
from serl.config.schema import Count, Fraction, Natural, Section

KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
NULLS_MEAN = ("overrides",)  # sections in which `key: null` is a value: it takes the key away from the base


class Grid(Section):
    """Every combination of the values, the last key varying fastest."""

    kind: Literal["grid"] = "grid"
    over: dict[str, list[JsonValue]] = Field(min_length=1)


class Listed(Section):
    """Exactly these trials, each a mapping of dotted keys to values."""

    kind: Literal["list"] = "list"
    trials: tuple[dict[str, JsonValue], ...] = Field(min_length=1)


class Range(Section):
    """Any number between `low` and `high`, to six digits; log_uniform: equally likely in every decade."""

    kind: Literal["uniform", "log_uniform"]
    low: float
    high: float


class Whole(Section):
    """A whole number from `low` to `high`, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int


class Choice(Section):
    """One of the values."""

    kind: Literal["choice"] = "choice"
    values: list[JsonValue] = Field(min_length=1)


Draw = Annotated[Range | Whole | Choice, Field(discriminator="kind")]


class Random(Section):
    """Seeded draws. The first N of a seed stay the same when `trials` is raised, and when a key is added."""

    kind: Literal["random"] = "random"
    trials: Count
    seed: Natural = 0
    over: dict[str, Draw] = Field(min_length=1)


Space = Annotated[Grid | Listed | Random, Field(discriminator="kind")]


class Lanes(Section):
    """At most this many trials at once."""

    kind: Literal["lanes"] = "lanes"
    lanes: Count


class Tasks(Section):
    """At most this many jobs running at once, an array's elements each counted, over the whole sweep."""

    kind: Literal["tasks"] = "tasks"
    tasks: Count


class Gpus(Section):
    """At most this many GPUs in use at once, over the whole sweep."""

    kind: Literal["gpus"] = "gpus"
    gpus: Count


Cap = Annotated[Lanes | Tasks | Gpus, Field(discriminator="kind")]


class EarlyStop(Section):
    """End a trial significantly worse than the best of its replicate: paired, Holm over trials."""

    after_round: Count
    alpha: Fraction = 0.05


class SweepConfig(Section):
    """Keys of `overrides` and space are dotted; a value may be a section, like {kind: grpo}."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")
    base: str = Field(description="a run file; relative to the sweep file, like `extends`")
    overrides: dict[str, JsonValue] = Field(default={}, description="for every trial")
    space: Space
    replicate: str = Field(
        default="seed",
        description="the key that only repeats: trials that differ in nothing else are averaged",
    )
    replicates: list[JsonValue] = Field(
        default=[], description="values of `replicate` that every point of the space is run with"
    )
    cap: Cap = Lanes(lanes=4)
    share: bool = Field(
        default=True, description="compute once what trials have in common before their first RL training"
    )
    early_stop: EarlyStop | None = None

    @field_validator("overrides")
    @classmethod
    def _known(cls, overrides: dict[str, JsonValue]) -> dict[str, JsonValue]:
        _check_keys(overrides)
        return overrides

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        space = self.space
        trials = space.trials if isinstance(space, Listed) else [space.over]
        varied = [key for trial in trials for key in trial]
        _check_keys(varied)
        for key, values in {} if isinstance(space, Listed) else space.over.items():
            if not values:
                raise ValueError(f"space.over.{key}: no values; give at least one")
            if isinstance(values, Range | Whole) and values.low > values.high:
                raise ValueError(f"space.over.{key}: low {values.low} is above high {values.high}")
            if isinstance(values, Range) and values.kind == "log_uniform" and values.low <= 0.0:
                raise ValueError(f"space.over.{key}: low {values.low} has no logarithm; give more than 0")
        if self.replicates and self.replicate in varied:
            raise ValueError(
                f"replicates: {self.replicate} is varied by the space too; give its values in one place"
            )
        return self


def _check_keys(keys: Iterable[str]) -> None:
    for key in keys:
        if not KEY.fullmatch(key):
            raise ValueError(f"key {key!r}: write a dotted key, like train.optimizer.lr")
        if key == "name":
            raise ValueError("key 'name': a trial's run is named after the sweep and the trial; take it out")


def load_sweep_file(path: Path) -> SweepConfig:
    """The sweep that a file describes; ConfigError names file, key, value and remedy."""
    source = read(path)
    if "engine" in source.tree:
        raise ConfigError(
            f"{path}: this is a run file; start it with `python -m jobs.launch`, or name a sweep file, like "
            "configs/sweeps/algorithms.yaml"
        )
    sweep = validate(SweepConfig, source, nulls_mean=NULLS_MEAN)
    if not (base := base_path(path, sweep)).is_file():
        raise ConfigError(
            f"{path}: base: {sweep.base!r}: there is no file {base}; the path is relative to the sweep file"
        )
    return sweep


def base_path(path: Path, sweep: SweepConfig) -> Path:
    return (path.parent / sweep.base).resolve()
