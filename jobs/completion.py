"""Shell completion: `source <(slurm/python -m jobs.completion bash)`, or zsh, after which TAB completes `python -m jobs.VERB ...`.

Completed are verbs and their options, names of runs and sweeps, cluster and run files, stages, and dotted override keys with the values that
the schema allows. What is printed is pure shell that lists the data root's folders itself: pressing TAB starts no Python. Verbs and options are
read from the verbs' source text, without importing it.
"""

import argparse
import ast
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from serl.config.run import RunConfig
from serl.stages import kinds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMMON = (
    "--cluster=",
    "--data=",
    "--json",
    "--help",
)  # of `jobs.shell.command.parser`; = where a value follows
KINDS = {
    "run": "run",
    "first": "run",
    "second": "run",
    "config": "file",
    "override": "key",
    "stage": "stage",
    "what": "sweepfile",
    "name": "sweep",
}
SCRIPT = r"""
_serl_words() { local IFS=$' \t\n'; COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_serl_names() { # of the folders in a folder of the data root
  local data=${SERL_DATA:-data} i names=
  for ((i = 1; i < COMP_CWORD; i++)); do [ "${COMP_WORDS[i]}" = --data ] && data=${COMP_WORDS[i + 1]}; done
  data=${data/#\~/$HOME}
  [ -d "$data/$1" ] && names=$(ls -1 "$data/$1" 2> /dev/null)
  _serl_words "$names"
}
_serl_paths() { # files that fit the pattern, and folders to look in
  local IFS=$'\n' slash=
  if type compopt > /dev/null 2>&1; then compopt -o filenames; else slash=/; fi
  COMPREPLY=($(compgen -f -X "!$1" -- "$cur") $(compgen -S "$slash" -d -- "$cur"))
}
_serl_value() { # of the key in $1
  case $1 in
@VALUES@
    *) COMPREPLY=() ;;
  esac
}
_serl_kind() {
  case $1 in
    run) _serl_names runs ;;
    sweep) _serl_names sweeps ;;
    sweepfile) _serl_paths '*.y*ml'; COMPREPLY+=($(compgen -W "status cancel report" -- "$cur")) ;;
    file) _serl_paths '*.y*ml' ;;
    stage) _serl_words "@STAGES@" ;;
    key) COMPREPLY=($(compgen -S = -W "@KEYS@" -- "$cur")); type compopt > /dev/null 2>&1 && compopt -o nospace ;;
    *) COMPREPLY=() ;;
  esac
}
_serl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} module= first=0 i options= valued= kinds= seen=0 kind
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [ "${COMP_WORDS[i]}" = -m ]; then module=${COMP_WORDS[i + 1]}; first=$((i + 2)); break; fi
  done
  if [ "$prev" = -m ]; then _serl_words "@MODULES@"; return; fi
  case $module in
@VERBS@
    *) return ;;
  esac
  if [ "$cur" = = ]; then cur=; _serl_value "$prev"; return; fi
  if [ "$prev" = = ]; then _serl_value "${COMP_WORDS[COMP_CWORD - 2]}"; return; fi
  case $prev in
    --cluster) _serl_paths '*.y*ml'; COMPREPLY+=($(compgen -W "@CLUSTERS@" -- "$cur")); return ;;
    --data) _serl_paths '*/'; return ;;
  esac
  case " $valued " in *" $prev "*) return ;; esac
  case $cur in
    -*) _serl_words "$options"; return ;;
    *=*) kind=${cur%%=*}=; cur=${cur#*=}; _serl_value "${kind%=}"; COMPREPLY=($(compgen -P "$kind" -W "${COMPREPLY[*]}")); return ;; # zsh, where = parts no words
  esac
  for ((i = first; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in -*) case " $valued " in *" ${COMP_WORDS[i]} "*) i=$((i + 1)) ;; esac ;; =) i=$((i + 1)) ;; *) seen=$((seen + 1)) ;; esac
  done
  set -- $kinds
  while [ $# -gt 1 ] && [ $seen -gt 0 ]; do case $1 in *\*) break ;; esac; shift; seen=$((seen - 1)); done
  kind=${1%\*}
  [ $seen -gt 0 ] && [ "$kind" = "${1-}" ] && return
  _serl_kind "$kind"
}
"""
START = {
    "bash": "complete -o bashdefault -o default -F _serl python python3 slurm/python\n",
    "zsh": r"""
_serl_spaced() { # with a space after what is whole, since zsh is told once and for all to add none
  local i; _serl
  for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do case ${COMPREPLY[i]} in *[=/]) ;; *) COMPREPLY[i]="${COMPREPLY[i]} " ;; esac; done
}
whence compdef > /dev/null || { autoload -Uz compinit && compinit; }
autoload -U +X bashcompinit && bashcompinit
complete -o nospace -o default -F _serl_spaced python python3 slurm/python
""",
}


def verbs() -> dict[str, tuple[list[str], list[str]]]:
    """Options and positional arguments of every verb; an option that takes a value ends in =, an argument that repeats in *."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if f'parser("{path.stem}"' in text and "__main__" in text:
            found[path.stem] = _arguments(ast.parse(text))
    return found


def _arguments(tree: ast.Module) -> tuple[list[str], list[str]]:
    options, positional = list(COMMON), []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="add_argument"),
                args=[ast.Constant(value=str(name)), *_],
                keywords=keywords,
            ):
                given = {k.arg: k.value.value for k in keywords if isinstance(k.value, ast.Constant)}
                if name.startswith("--"):
                    options.append(name if str(given.get("action", "")).startswith("store_") else f"{name}=")
                else:
                    positional.append(
                        KINDS.get(name, "none") + ("*" if given.get("nargs") in ("*", "+") else "")
                    )
    return options, positional


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every dotted key below a section, whichever of a union's sections it is of, with the values that it may have where they are few."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        values = tuple(_values(field.annotation))
        sections = _sections(field.annotation)
        if not sections or values:
            yield key, values
        for section in sections:
            yield from keys(section, f"{key}.")


def _sections(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [s for part in get_args(annotation) for s in _sections(part)]
    return []


def _values(annotation: object) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from _values(part)


def script(shell: str) -> str:
    allowed: dict[str, dict[str, None]] = {}
    sections = {"": RunConfig, **{f"{name}.": kind.section for name, kind in kinds().items()}}
    for key, values in (found for prefix, section in sections.items() for found in keys(section, prefix)):
        allowed.setdefault(key, {}).update(dict.fromkeys(values))
    found = verbs()
    cases = [f"    jobs.{verb}) {_case(options, kinds)} ;;" for verb, (options, kinds) in found.items()]
    modules = [f"jobs.{v}" for v in found] + [
        f"evaluation.{p.stem}"
        for p in sorted((ROOT / "evaluation").glob("*.py"))
        if "def main(" in p.read_text(encoding="utf-8")
    ]
    parts = {
        "VALUES": "\n".join(
            f'    {key}) _serl_words "{" ".join(values)}" ;;' for key, values in allowed.items() if values
        ),
        "STAGES": " ".join(kinds()),
        "KEYS": " ".join(allowed),
        "MODULES": " ".join(modules),
        "VERBS": "\n".join(cases),
        "CLUSTERS": " ".join(sorted(p.stem for p in (ROOT / "configs" / "clusters").glob("*.yaml"))),
    }
    text = SCRIPT
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text + START[shell]


def _case(options: list[str], kinds: list[str]) -> str:
    plain = " ".join(o.removesuffix("=") for o in options)
    valued = " ".join(o.removesuffix("=") for o in options if o.endswith("="))
    return f'options="{plain}" valued="{valued}" kinds="{" ".join(kinds)}"'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m jobs.completion",
        description="Print a shell's completions: source <(python -m jobs.completion bash).",
    )
    parser.add_argument("shell", choices=sorted(START))
    print(script(parser.parse_args().shell))
