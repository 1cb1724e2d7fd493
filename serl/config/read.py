"""From files and overrides to a run: which phases and stages it has decides which keys it may have."""

import difflib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pydantic import create_model

from serl import stages as rooms
from serl.config.files import ConfigError, Key, Source, Tree, override, read, validate
from serl.config.run import Phase, Phases, RunConfig
from serl.stages.kind import Kind


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a file and overrides like `train.optimizer.lr=1e-6` describe."""
    source = read(path)
    for text in overrides:
        key, value = override(text)
        source = source.over(full_key(source.tree, key), value, f"override {text!r}")
    if overrides:
        source = Source(path, source.tree, {**source.origins, (): f"{path} with {' '.join(overrides)}"})
    return parse(source)


def full_key(tree: Tree, key: str) -> str:
    """A key as the file would have it: `phases.` may be left out, and the phase where one alone has what
    follows.
    """
    first, _, rest = key.partition(".")
    phases = tree.get("phases")
    if (
        first == "phases"
        and isinstance(phases, dict)
        and rest
        and (name := rest.partition(".")[0]) not in phases
    ):
        raise ConfigError(f"{key}: there is no phase {name!r}; the phases are {', '.join(phases)}")
    if first in RunConfig.model_fields or not isinstance(phases, dict):
        return key
    if first in phases:
        return f"phases.{key}"
    having = [
        n for n, p in phases.items() if isinstance(p, dict) and (first in p or first in Phase.model_fields)
    ]
    if len(having) > 1:
        raise ConfigError(
            f"{key}: several phases have it; write {' or '.join(f'phases.{n}.{key}' for n in having)}"
        )
    return f"phases.{having[0]}.{key}" if having else key


def _in_a_phase(key: str, phases: object) -> str:
    """The full name of what a key at the top was meant for, if it looks like something of a phase."""
    named = [(n, p) for n, p in phases.items() if isinstance(p, dict)] if isinstance(phases, dict) else []
    first = named[0] if named else ("NAME", {})
    known = {
        k: f"phases.{n}.{k}" for n, p in [(first[0], dict.fromkeys(Phase.model_fields)), *named] for k in p
    }
    known = {k: f"phases.{first[0]}.{k}" for k in rooms.kinds()} | known
    near = difflib.get_close_matches(key, [*known, *RunConfig.model_fields], n=1)
    return known.get(near[0], "") if near else ""


def with_files(source: Source) -> Source:
    """With the content of every Python file that a reward names, which is then part of the run and of its
    digest.
    """

    def filled(value: object, key: Key) -> object:
        if isinstance(value, list):
            return [filled(v, (*key, str(i))) for i, v in enumerate(value)]
        if not isinstance(value, dict):
            return value
        path = value.get("path")
        if value.get("kind") == "python" and isinstance(path, str) and ".py:" in path:
            return value | {"text": _beside(source, key, path.rpartition(":")[0])}
        return {k: filled(v, (*key, k)) for k, v in value.items()}

    return Source(source.path, filled(source.tree, ()), source.origins)


def _beside(source: Source, key: Key, name: str) -> str:
    """The text of a file, its name being relative to the configuration file that wrote it."""
    origin = Path(source.origin(key))
    path = (origin if origin.suffix == ".yaml" else source.path).parent / name
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            f"{source.where(key)}: {path}: cannot be read: {e}; put the file beside the run file"
        ) from e


def parse(source: Source) -> RunConfig:
    """The run that files and overrides describe."""
    source = with_files(source)
    tree = source.tree
    phases = tree.get("phases")
    for key in tree:
        if key not in RunConfig.model_fields and (meant := _in_a_phase(key, phases)):
            raise ConfigError(
                f"{source.where((key,))}: unknown key; stages and rounds stand in a phase: did you mean "
                f"{meant}?"
            )
    shape = _shape(phases, source, _plugins(tree)) if isinstance(phases, dict) else ()
    return validate(schema_of(shape), source)


def revive(tree: dict) -> RunConfig:
    """A configuration that was frozen as JSON; raises ValueError where it is of no version that this one
    knows.
    """
    phases = tree["phases"]
    plugins = tuple(tree.get("plugins", ()))
    shape = tuple(
        (name, tuple((s, kind_name) for s in phase["stages"] if (kind_name := phase[s].get("kind") or s)))
        for name, phase in phases.items()
    )
    for _, stages in shape:
        for _, kind_name in stages:
            if rooms.kind(kind_name, plugins) is None:
                raise ValueError(f"its kind of stage {kind_name!r} is not known here")
    full = tuple((name, tuple((s, k, plugins) for s, k in stages)) for name, stages in shape)
    return schema_of(full).model_validate_json(json.dumps(tree))


def _plugins(tree: Tree) -> tuple[str, ...]:
    given = tree.get("plugins") or []
    return tuple(p for p in given if isinstance(p, str)) if isinstance(given, list) else ()


Shape = tuple[tuple[str, tuple[tuple[str, str, tuple[str, ...]], ...]], ...]


def _shape(phases: Tree, source: Source, plugins: tuple[str, ...]) -> Shape:
    """The phases' names, each with its stages' names and kinds; raises ConfigError where that cannot be
    told.
    """
    return tuple(
        (name, _stages_of(name, phase, source, plugins))
        for name, phase in phases.items()
        if isinstance(phase, dict)
    )


def _stages_of(
    name: str, phase: Tree, source: Source, plugins: tuple[str, ...]
) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    listed = phase.get("stages")
    stages = [s for s in listed if isinstance(s, str)] if isinstance(listed, list) else []
    known = ", ".join(rooms.kinds(plugins))
    found = []
    for stage in stages:
        key = ("phases", name, stage)
        where = source.where(("phases", name, "stages"))
        section = phase.get(stage)
        if stages.count(stage) > 1:
            raise ConfigError(
                f"{where}: {stage} is listed twice; give one of them another name, and its kind"
            )
        if section is None:
            raise ConfigError(
                f"{where}: {stage} is listed in stages but has no section: a section exists if and only if "
                "its stage "
                "is listed"
            )
        kind = section.get("kind") if isinstance(section, dict) else None
        kind_name = kind if isinstance(kind, str) else stage
        if rooms.kind(kind_name, plugins) is None:
            hint = "" if kind else "; a stage whose name is no kind says its kind"
            raise ConfigError(
                f"{source.where(key)}: {kind_name!r} is no kind of stage; choose one of {known}{hint}"
            )
        found.append((stage, kind_name, plugins))
    for key in phase:
        if key in Phase.model_fields or key in stages or phase[key] is None:
            continue
        if rooms.kind(key, plugins):
            raise ConfigError(
                f"{source.where(('phases', name, key))}: {key} is not listed in stages but has a section: "
                "a section "
                "exists if and only if its stage is listed"
            )
    return tuple(found)


@cache
def schema_of(shape: Shape) -> type[RunConfig]:
    """The schema of runs whose phases and stages are called so; equal shapes have the same one."""
    fields = {}
    for name, stages in shape:
        sections = {stage: (_kind(kind, plugins).section, ...) for stage, kind, plugins in stages}
        fields[name] = (create_model(f"Phase_{name}", __base__=Phase, **sections), ...)
    phases = create_model("PhasesOfRun", __base__=Phases, **fields)
    return create_model("RunOfShape", __base__=RunConfig, phases=(phases, ...))


def _kind(name: str, plugins: tuple[str, ...]) -> Kind:
    found = rooms.kind(name, plugins)
    assert found is not None, f"{name}: asked for before it was known to be a kind"
    return found
