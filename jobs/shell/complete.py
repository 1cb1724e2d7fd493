"""What a shell has to know to complete our verbs: their options, the keys of run files, names of files.

Verbs and options are read from the verbs' source text, without importing it; what is printed is pure shell
(completion.bash) that lists the data root's folders itself, so that pressing TAB starts no Python.
"""

import ast
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from serl.config.run import Phase, RunConfig
from serl.stages import kinds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMON = ("--cluster=", "--data=", "--json", "--help")  # of every verb's parser; = where a value follows
ARGUMENTS = {
    "run": "run", "first": "run", "second": "run", "config": "file", "override": "key", "stage": "stage",
    "what": "sweepfile", "name": "sweep",
}  # fmt: skip
START = {"bash": "complete -o bashdefault -o default -F _serl python python3 slurm/python\n"}


def verbs() -> dict[str, tuple[list[str], list[str]]]:
    """Options (with = where a value follows) and arguments (with * where they repeat) of every verb."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "jobs").glob("*.py"))}
    return {verb: _arguments(ast.parse(text)) for verb, text in texts.items() if f'parser("{verb}"' in text}


def _arguments(tree: ast.Module) -> tuple[list[str], list[str]]:
    options, positional = list(COMMON), []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="add_argument"),
                args=[ast.Constant(value=str(name)), *_],
                keywords=told,
            ):
                given = {k.arg: k.value.value for k in told if isinstance(k.value, ast.Constant)}
                if name.startswith("--"):
                    options.append(name if str(given.get("action", "")).startswith("store_") else f"{name}=")
                else:
                    many = "*" if given.get("nargs") in ("*", "+") else ""
                    positional.append(ARGUMENTS.get(name, "none") + many)
    return options, positional


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every dotted key below a section, of all sections of a union, with its values where they are few."""
    for name, field in model.model_fields.items():
        parts = tuple(_parts(field.annotation))
        values = tuple(word for part in parts for word in _values(part))
        sections = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if not sections or values:
            yield f"{prefix}{name}", values
        for section in sections:
            yield from keys(section, f"{prefix}{name}.")


def _parts(annotation: object) -> Iterator[object]:
    """What a field may be, each alternative of a union by itself."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _values(annotation: object) -> tuple[str, ...]:
    if annotation is bool:
        return "true", "false"
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()


def run_keys() -> dict[str, list[str]]:
    """The keys of a run file without `phases.NAME.`, and their values where they are few."""
    found: dict[str, list[str]] = {}
    sections = [("", RunConfig), ("", Phase), *((f"{name}.", kind.section) for name, kind in kinds().items())]
    for prefix, section in sections:
        for key, values in keys(section, prefix):
            found[key] = list(dict.fromkeys([*found.get(key, ()), *values]))
    return found


def shipped_phases() -> list[str]:
    """Names of the phases in the run files that come with the code."""
    trees = (yaml.safe_load(path.read_bytes()) for path in sorted((ROOT / "configs").rglob("*.yaml")))
    return sorted({name for tree in trees for name in tree.get("phases") or ()})


def script(shell: str) -> str:
    allowed, found = run_keys(), verbs()
    programs = [p.stem for p in sorted((ROOT / "evaluation").glob("*.py")) if "def main(" in p.read_text()]
    values = (f'    {key}) _serl_words "{" ".join(v)}" ;;' for key, v in allowed.items() if v)
    parts = {
        "VALUES": "\n".join(values),
        "STAGES": " ".join(kinds()),
        "KEYS": " ".join(allowed),
        "PHASES": " ".join(f"phases.{name}." for name in shipped_phases()),
        "MODULES": " ".join([*(f"jobs.{v}" for v in found), *(f"evaluation.{p}" for p in programs)]),
        "VERBS": "\n".join(f"    jobs.{verb}) {_case(*told)} ;;" for verb, told in found.items()),
        "CLUSTERS": " ".join(sorted(p.stem for p in (ROOT / "configs" / "clusters").glob("*.yaml"))),
    }
    text = (HERE / "completion.bash").read_text()
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text + (START.get(shell) or (HERE / f"completion.{shell}").read_text())


def _case(options: list[str], arguments: list[str]) -> str:
    plain = " ".join(o.removesuffix("=") for o in options)
    valued = " ".join(o.removesuffix("=") for o in options if o.endswith("="))
    return f'options="{plain}" valued="{valued}" kinds="{" ".join(arguments)}"'
