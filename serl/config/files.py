"""YAML files to validated sections: `extends`, dotted overrides, and errors that name file, key, value and
remedy.
"""

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

Scalar: TypeAlias = str | int | float | bool | None
Tree: TypeAlias = dict[str, "Tree | list[Tree | Scalar] | Scalar"]
Key: TypeAlias = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


class ConfigError(ValueError):
    """The user's configuration is wrong; the message says where and what to do."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats (`1e-6` is a number), no dates, keys that are text, and none twice."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Tree:
    seen: set[object] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(
                None, None, "merge keys (<<) are not read; use `extends`", key_node.start_mark
            )
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is not a text; quote it", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} appears twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, source: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise ConfigError(f"{source}: not valid YAML: {e}") from e
    except RecursionError as e:
        raise ConfigError(f"{source}: nested too deeply to be read; write it flatter") from e


@dataclass(frozen=True, slots=True)
class Source:
    """What files and overrides say, not yet checked against a schema: the tree, and where each of its keys
    was written.
    """

    path: Path
    tree: Tree
    origins: Mapping[Key, str]

    def where(self, key: Key) -> str:
        """The file or override that wrote a key, and the key, for an error."""
        return f"{self.origin(key)}: {'.'.join(map(str, key))}"

    def origin(self, key: Key) -> str:
        places = (key[:n] for n in range(len(key), -1, -1))
        return next((self.origins[place] for place in places if place in self.origins), str(self.path))

    def over(self, key: str, value: object, text: str) -> "Source":
        """With `value` at the dotted `key`, merged as a file that extends this one would merge it; `text` is
        what to call it in errors.
        """
        parts = tuple(key.split("."))
        tree = _merge(self.tree, _nested(self.tree, parts, value, text))
        kept = {k: v for k, v in self.origins.items() if k[: len(parts)] != parts}
        return Source(self.path, tree, {parts[:n]: text for n in range(1, len(parts) + 1)} | kept)


def load(model: type[M], path: Path, overrides: Sequence[str] = ()) -> M:
    """The section that `path` (with what it extends) and `overrides` like `train.optimizer.lr=1e-6`
    describe.
    """
    source = read(path)
    for text in overrides:
        source = source.over(*override(text), f"override {text!r}")
    if overrides:
        source = Source(path, source.tree, {**source.origins, (): f"{path} with {' '.join(overrides)}"})
    return validate(model, source)


def read(path: Path) -> Source:
    """A file with what it extends."""
    return Source(path, *_read(path, ()))


def validate(model: type[M], source: Source, *, nulls_mean: Sequence[str] = ()) -> M:
    """The section that a source describes. `key: null` takes an inherited key away, but for the top-level
    keys of `nulls_mean`, where it is a value.
    """
    tree = _without_nulls({k: v for k, v in source.tree.items() if k not in nulls_mean}) | {
        k: source.tree[k] for k in nulls_mean if k in source.tree
    }
    try:
        return model.model_validate_json(json.dumps(tree))
    except TypeError as e:  # a YAML tag such as !!binary
        raise ConfigError(f"{source.path}: {e}; write texts, numbers, lists and mappings only") from e
    except ValidationError as e:
        raise ConfigError(
            "\n".join(_explain(model, tree, source.origins, source.path, error) for error in e.errors())
        ) from None


def load_tagged(models: Mapping[str, type[M]], path: Path) -> M:
    """The section at `path`, of the model that its `kind` names."""
    tree, _ = _read(path, ())
    kind = tree.get("kind")
    if not isinstance(kind, str) or kind not in models:
        what = f"{kind!r} is unknown" if "kind" in tree else "missing, so this is another kind of file"
        raise ConfigError(f"{path}: kind: {what}; choose one of {', '.join(map(repr, models))}")
    return load(models[kind], path)


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[Tree, dict[Key, str]]:
    if path in seen:
        raise ConfigError(f"{path}: extends itself through {' -> '.join(p.name for p in (*seen, path))}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=3)
        asked = f" (extended by {seen[-1]})" if seen else ""
        raise ConfigError(
            f"{path}: no such file{asked}" + (f"; did you mean {', '.join(near)}?" if near else "")
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: a configuration is a mapping of keys to values, found {type(tree).__name__}"
        )
    origins: dict[Key, str] = {key: str(path) for key in _keys(tree)}
    parents = tree.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(p, str) for p in parents):
        raise ConfigError(f"{path}: extends: {parents!r} is neither a file name nor a list of file names")
    base: Tree = {}
    base_origins: dict[Key, str] = {}
    for parent in parents:
        more, more_origins = _read((path.parent / parent).resolve(), (*seen, path))
        base, base_origins = _merge(base, more), base_origins | more_origins
    return _merge(base, tree), base_origins | origins


def _keys(tree: Tree, prefix: Key = ()) -> Iterator[Key]:
    for key, value in tree.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from _keys(value, (*prefix, key))


def _merge(base: Tree, delta: Tree) -> Tree:
    """`delta` over `base`; a section whose `kind` changes is replaced whole, everything else key by key."""
    if "kind" in delta and delta["kind"] != base.get("kind", delta["kind"]):
        return delta
    merged = dict(base)
    for key, value in delta.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _without_nulls(tree: Tree) -> Tree:
    """`key: null` takes an inherited key away."""
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}


def override(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*", key):
        raise ConfigError(
            f"override {text!r}: write key=value with a dotted key, like train.optimizer.lr=1e-6"
        )
    return key, parse_yaml(value, f"override {text!r}") if value else ""


def _nested(tree: Tree, key: Key, value: object, text: str) -> Tree:
    """The override as a delta file would write it; it merges by the same rules."""
    if len(key) == 1:
        return {key[0]: value}
    child = tree.get(key[0])
    if child is not None and not isinstance(child, dict):
        raise ConfigError(f"{text}: {key[0]} is {child!r}, not a section")
    return {key[0]: _nested(child or {}, key[1:], value, text)}


def _explain(model: type[BaseModel], tree: Tree, origins: Mapping[Key, str], path: Path, error: dict) -> str:
    key, section = _locate(model, error["loc"])
    if error["type"].startswith("union_tag"):
        key = (*key, "kind")
    places = [key, (*key[:-1], "kind"), *(key[:n] for n in range(len(key) - 1, -1, -1))]
    source = next((origins[place] for place in places if place in origins), str(path))
    where = f"{source}: {'.'.join(map(str, key))}" if key else source
    match error["type"]:
        case "extra_forbidden":
            if instead := section.former.get(str(key[-1])):
                return f"{where}: a key of an earlier version (value {_short(error['input'])}); {instead}"
            valid = sorted(section.model_fields)
            near = difflib.get_close_matches(str(key[-1]), valid, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
            return f"{where}: unknown key (value {_short(error['input'])}); {hint}"
        case "missing":
            return f"{where}: missing; add this key"
        case "value_error":
            return f"{where}: {error['ctx']['error']}"
        case "string_type" if isinstance(error["input"], int | float):
            value = _short(error["input"])
            return f"{where}: {value}: input should be a text, in quotes: '\"{value}\"'"
        case "union_tag_invalid":
            return (
                f"{where}: {error['ctx']['tag']!r} is unknown; choose one of {error['ctx']['expected_tags']}"
            )
        case "union_tag_not_found":
            kinds = [
                m.model_fields["kind"].default for m in _models(section.model_fields[key[-2]].annotation)
            ]
            return f"{where}: missing; choose one of {', '.join(map(repr, kinds))}"
        case _:
            return f"{where}: {_short(error['input'])}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _locate(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[Key, type[BaseModel]]:
    """The user's key for pydantic's location (which also names union tags), and the section that holds it."""
    key: list[str | int] = []
    section, here = model, _models(model)
    for part in loc:
        tagged = [m for m in here if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        if tagged and len(here) > 1:
            here = tagged
            continue
        key.append(part)
        if here:
            section = here[0]
        field = next((m.model_fields[part] for m in here if part in m.model_fields), None)
        here = _models(field.annotation) if field else []
    return tuple(key), section


def _models(annotation: object) -> list[type[BaseModel]]:
    """The section classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [m for a in get_args(annotation) for m in _models(a)]
    return []
