"""From a sweep file to its trials, and the record of a sweep: `<data>/sweeps/<name>/sweep.json`.

A trial is a run like any other, named `<sweep>-<id>`; its id is the digest of its overrides, so that a sweep
file that is edited and launched again means the same trial by the same overrides, wherever they stand in it.
"""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from jobs.sweeps import schema
from jobs.sweeps.schema import Choice, Draw, Grid, Listed, Random, Range, SweepConfig
from serl.config.files import ConfigError, Source, read
from serl.config.read import full_key, parse
from serl.config.run import RunConfig
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError

DRAWS_FOR_ONE = 1000  # of a space that is nearly used up, before it counts as used up


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of a sweep: what differs from the base, and the run that does it."""

    id: str
    overrides: Mapping[str, JsonValue]
    run: str

    def opened(self, data: Path) -> Run | None:
        """Its run; None where that was not created yet."""
        root = data / "runs" / self.run
        return Run.open(root) if (root / "run.json").is_file() else None

    def setting(self, replicate: str) -> str:
        """What trials have in common that only repeat each other."""
        return json.dumps({k: v for k, v in self.overrides.items() if k != replicate}, sort_keys=True)

    def whole(self, overrides: Mapping[str, JsonValue]) -> "Trial":
        """With all that its id is the digest of: the sweep's own `overrides` may have changed since."""
        mine = self.overrides
        return self if _digest(mine) == self.id else replace(self, overrides={**overrides, **mine})

    def __str__(self) -> str:
        return ", ".join(f"{k}={_told(v)}" for k, v in self.overrides.items()) or "the base as it is"


def _told(value: JsonValue) -> str:
    """A value as short as it can be and still be told from others."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value)
    whole = "{" + ", ".join(f"{k}: {_told(v)}" for k, v in value.items()) + "}"
    return value["kind"] if list(value) == ["kind"] else whole


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by as few of its last words as tell it from the others."""

    def ends(key: str, end: str) -> bool:
        return f".{key}".endswith(f".{end}")

    names = {}
    for key in dict.fromkeys(keys):
        words = key.split(".")
        shorter = [".".join(words[-n:]) for n in range(1, len(words) + 1)]
        own = (end for end in shorter if not any(ends(other, end) for other in keys if other != key))
        names[key] = next(own, key)
    return names


def labels(trials: Sequence[Trial]) -> list[str]:
    """What differs, in short."""
    short = short_keys(list(dict.fromkeys(key for t in trials for key in t.overrides)))
    return [str(replace(t, overrides={short[k]: v for k, v in t.overrides.items()})) for t in trials]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep as it was last launched: its file's content, and every trial that it has had."""

    name: str
    config: SweepConfig
    trials: tuple[Trial, ...]


def sweep_dir(data: Path, name: str) -> Path:
    return data / "sweeps" / name


def load_sweep(data: Path, name: str) -> Sweep:
    path = sweep_dir(data, name) / "sweep.json"
    try:
        return TypeAdapter(Sweep).validate_json(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(sorted(p.parent.name for p in (data / "sweeps").glob("*/sweep.json")))
        none = "there are none; set --data or $SERL_DATA to the data root you launched with"
        raise RunError(f"{path}: no such sweep; {f'sweeps there: {known}' if known else none}") from None
    except ValueError as e:
        remedy = "launch the sweep file again to write it anew"
        raise RunError(f"{path}: damaged, or of another version ({e}); {remedy}") from e


def save_sweep(data: Path, sweep: Sweep) -> None:
    path = sweep_dir(data, sweep.name) / "sweep.json"
    text = TypeAdapter(Sweep).dump_json(sweep, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != text:
        write_atomic(path, text)


# -------------------------------------------------------------------------------------------- trials
def trials_of(config: SweepConfig) -> list[Trial]:
    """The sweep's trials, in an order that growing the space at its end does not change."""
    points = _points(config)
    if config.replicates:
        points = ({**point, config.replicate: value} for point in points for value in config.replicates)
    trials: dict[str, Trial] = {}
    for point in points:
        id = _digest({**config.overrides, **point})
        if id in trials:
            raise ConfigError(f"sweep {config.name}: {trials[id]} stands in it twice; take one out")
        trials[id] = Trial(id=id, overrides=point, run=f"{config.name}-{id}")
    return list(trials.values())


def _digest(overrides: Mapping[str, JsonValue]) -> str:
    return hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:10]


def _points(config: SweepConfig) -> Iterator[dict[str, JsonValue]]:
    match config.space:
        case Grid(over=over):
            yield from (dict(zip(over, values)) for values in itertools.product(*over.values()))
        case Listed(trials=trials):
            yield from map(dict, trials)
        case Random() as space:
            yield from _drawn(config.name, space)


def _drawn(name: str, space: Random) -> Iterator[dict[str, JsonValue]]:
    """Draw number n of a key is a function of (seed, key, n); a point drawn before is passed over."""
    seen: set[str] = set()
    for n in itertools.count():
        if len(seen) == space.trials:
            return
        if n > space.trials * DRAWS_FOR_ONE:
            raise ConfigError(
                f"sweep {name}: space.trials {space.trials}: only {len(seen)} different ones were found; ask "
                "for fewer, or widen the space"
            )
        point = {
            key: _draw(draw, random.Random(f"{space.seed}/{key}/{n}")) for key, draw in space.over.items()
        }
        if (id := _digest(point)) not in seen:
            seen.add(id)
            yield point


def _draw(draw: Draw, rng: random.Random) -> JsonValue:
    match draw:
        case Choice():
            return rng.choice(draw.values)
        case Range(kind="int"):
            return rng.randint(int(draw.low), int(draw.high))
        case Range(kind="uniform"):
            return float(f"{rng.uniform(draw.low, draw.high):.6g}")
        case Range(kind="log_uniform"):
            return float(f"{math.exp(rng.uniform(math.log(draw.low), math.log(draw.high))):.6g}")


# ------------------------------------------------------------------------------------ configurations
def configs_of(path: Path, sweep: SweepConfig, trials: Sequence[Trial]) -> list[RunConfig]:
    """Each trial's, checked; the base is read once. ConfigError names the override that is wrong."""
    base = read(schema.base_path(path, sweep))
    for key, value in sweep.overrides.items():
        base = base.over(full_key(base.tree, key), value, f"{path}: overrides: {key}")
    return [_config(path, base, trial) for trial in trials]


def _config(path: Path, base: Source, trial: Trial) -> RunConfig:
    source = base
    for key, value in trial.overrides.items():
        source = source.over(full_key(source.tree, key), value, f"{path}: trial {key}={_told(value)}")
    origins = {**source.origins, (): f"{path}: trial {trial}"}
    return parse(Source(source.path, source.tree | {"name": trial.run}, origins))
