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
    """A number from `low` to `high`: any, to six digits; log_uniform: equally likely in every decade; int:
    whole, both ends included.
    """

    kind: Literal["uniform", "log_uniform", "int"]
    low: float
    high: float

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.kind == "log_uniform" and self.low <= 0.0:
            raise ValueError(f"low {self.low:g} has no logarithm; give more than 0")
        if self.kind == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low {self.low:g} and high {self.high:g}: give whole numbers")
        return self


class Choice(Section):
    """One of the values."""

    kind: Literal["choice"] = "choice"
    values: list[JsonValue] = Field(min_length=1)


Draw = Annotated[Range | Choice, Field(discriminator="kind")]


class Random(Section):
    """Seeded draws. The first N of a seed stay the same when `trials` is raised, and when a key is added."""

    kind: Literal["random"] = "random"
    trials: Count
    seed: Natural = 0
    over: dict[str, Draw] = Field(min_length=1)


Space = Annotated[Grid | Listed | Random, Field(discriminator="kind")]


class Cap(Section):
    """At most so many at once, over the whole sweep; of several numbers, all hold."""

    lanes: Count | None = Field(default=None, description="trials")
    tasks: Count | None = Field(default=None, description="running jobs, an array's elements each counted")
    gpus: Count | None = Field(default=None, description="GPUs in use")
    kind: str | None = Field(default=None, description="files of before named the one number; not read")


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
    cap: Cap = Cap(lanes=4)
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
        if isinstance(space, Grid) and (empty := [key for key, values in space.over.items() if not values]):
            raise ValueError(f"space.over.{empty[0]}: no values; give at least one")
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
