"""What a shell has to know to complete our verbs: their options, names of runs and files.

Verbs and options are read from the verbs' source text, without importing it; what is printed is pure shell
(completion.bash) that lists the data root's folders itself, so that pressing TAB starts no Python.
"""

import ast
from pathlib import Path

from serl.stages import kinds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMON = ("--cluster=", "--data=", "--json", "--help")  # of every verb's parser; = where a value follows
ARGUMENTS = {
    "run": "run", "first": "run", "second": "run", "config": "file", "stage": "stage",
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


def script(shell: str) -> str:
    found = verbs()
    programs = [p.stem for p in sorted((ROOT / "evaluation").glob("*.py")) if "def main(" in p.read_text()]
    parts = {
        "STAGES": " ".join(kinds()),
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
