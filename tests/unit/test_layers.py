"""Imports point down only, heavy packages have one door each, and a login node loads none of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted(p for package in ("jobs", "serl", "evaluation") for p in (ROOT / package).rglob("*.py"))

# Which layer a module is in, lowest first: the longest prefix counts. A module may import from layers below its own, and
# from its own (circles are refused apart).
LAYERS: list[tuple[str, set[str]]] = [
    ("evaluation", {"evaluation"}),
    (
        "pure core",
        {
            *("serl.config.schema", "serl.config.training", "serl.config.base", "serl.config.rules"),
            *("serl.config.engine", "serl.config.files", "serl.config.objectives", "serl.config.rewards"),
            *("serl.engines.hf_folder", "serl.engines.arguments", "serl.randomness"),
            *("serl.records", "serl.text", "serl.rewards", "serl.world", "serl.safety.vitals"),
            *("serl.stages.sources", "serl.stages.kind", "serl.stages"),
        },
    ),
    ("configuration", {"serl.config"}),
    ("pure torch", {"serl.learning"}),
    ("bytes and signals", {"serl.run", "serl.safety"}),
    ("engines", {"serl.engines"}),
    (
        "stages",
        {f"serl.stages.{p.stem if p.suffix else p.name}" for p in (ROOT / "serl/stages").iterdir()}
        - {"serl.stages.sources", "serl.stages.kind", "serl.stages.__init__"},
    ),
    ("what runs where", {"jobs"}),
]

# Who may import what is heavy, anywhere in the file; everything else must do without. A folder stands for its modules.
DOORS = {
    "vllm": {"serl.engines.generator", "serl.engines.resident", "serl.engines.arguments"},
    "deepspeed": {"serl.engines.zero"},
    "transformers": {"serl.engines", "serl.stages.corpus.run"},
    "tokenizers": {"serl.engines.tokenizer"},
    "datasets": {"serl.text.problems", "evaluation.fetch"},
    "torch": {"serl.learning", "serl.engines", "serl.stages.train"},
    "submitit": {"jobs.chain"},
    "sympy": {"evaluation.algebra"},
    "latex2sympy2_extended": {"evaluation.algebra"},
    "math_verify": {"evaluation.algebra"},
    "matplotlib": {"jobs.reporting"},
    "jinja2": {"jobs.reporting", "jobs.browser"},
}
KINDS = sorted(p.parent.name for p in (ROOT / "serl/stages").glob("*/spec.py"))
HEAVY = ("torch", "vllm", "deepspeed", "transformers", "matplotlib", "tokenizers", "datasets", "sympy")
VERBS = ("launch", "resume", "status", "cancel", "shard", "report", "browse", "logs", "gc", "diff", "whatif", "sweep")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere, also inside functions."""
    ours = {module_name(p) for p in FILES}
    found = set()
    tree = ast.parse(path.read_text())
    for_types = {n for node in ast.walk(tree) if _is_for_types(node) for n in ast.walk(node)}
    for node in (n for n in ast.walk(tree) if n not in for_types):
        match node:
            case ast.Import(names=names):
                found |= {a.name for a in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {f"{module}.{a.name}" if f"{module}.{a.name}" in ours else module for a in names}
            case ast.ImportFrom():
                raise AssertionError(f"{path}: relative import; write the whole name")
    return found


def _is_for_types(node: ast.AST) -> bool:
    """An `if TYPE_CHECKING:` block, which nothing runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def layer(module: str) -> int:
    """By the longest name that it is within; `serl.stages` itself is the door to the kinds, and none of them."""
    found = {
        place: number
        for number, (_, members) in enumerate(LAYERS)
        for place in members
        if module == place or (place != "serl.stages" and module.startswith(place + "."))
    }
    assert found, f"{module}: in no layer; give it a place in {Path(__file__).name}"
    return found[max(found, key=len)]


IMPORTS = {module_name(p): imports(p) for p in FILES}
OURS = {name: {
        i for i in found if i.split(".")[0] in ("jobs", "serl", "evaluation") and i not in ("serl", "jobs", "evaluation")
    } for name, found in IMPORTS.items()}


@pytest.mark.parametrize("module", [m for m in IMPORTS if m != "serl"])
def test_imports_point_down(module):
    for imported in OURS[module]:
        assert layer(imported) <= layer(module), f"{module} imports {imported}, of the layer {LAYERS[layer(imported)][0]!r} above it"


def test_evaluation_knows_nothing_of_serl():
    assert not [(m, i) for m, found in OURS.items() if m.startswith("evaluation") for i in found if not i.startswith("evaluation")]


def test_what_reads_runs_asks_nobody_who_runs_them():
    """Not those who submit, nor those who draw, but for the vitals that a run's facts have."""
    above = {f"jobs.{room}" for room in ("chain", "health", "costs", "sweeps", "reporting", "browser")}
    found = [(m, i) for m, known in OURS.items() for i in known if within(m, {"jobs.runs"}) and within(i, above)]
    assert found == [("jobs.runs.state", "jobs.reporting.vitals")]


def test_nobody_imports_a_verb():
    assert not [(m, i) for m, found in OURS.items() for i in found if i in {f"jobs.{v}" for v in VERBS}]


def test_a_kind_is_entered_through_the_door_alone():
    """No module outside a kind's folder imports from it: `serl.stages.kinds()` and a kind's own methods are the way in."""
    rooms = {kind: f"serl.stages.{kind}" for kind in KINDS}
    for module, found in OURS.items():
        for kind, room in rooms.items():
            inside = sorted(i for i in found if within(i, {room}))
            assert within(module, {room}) or not inside, f"{module} imports {inside} of the kind {kind}"


def test_no_file_outside_the_rooms_names_a_kind():
    """A new kind is one folder: what the rest of the project does with stages, it does by asking them."""
    named = []
    for path in FILES:
        if (ROOT / "serl/stages") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in KINDS:
                named.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}")
    assert named == []


def test_stages_know_nothing_of_scheduling():
    assert not [(m, i) for m, found in IMPORTS.items() if m.startswith("serl") for i in found if i.split(".")[0] in ("submitit", "jobs")]


@pytest.mark.parametrize("package", DOORS)
def test_a_heavy_package_has_its_doors_and_no_others(package):
    users = {m for m, found in IMPORTS.items() if any(i.split(".")[0] == package for i in found)}
    strangers = {m for m in users if not within(m, DOORS[package])}
    assert not strangers, f"{strangers} import {package}"


def test_no_import_goes_round_in_a_circle():
    """At import time, that is; an import inside a function is a lazy door and may not close a circle either."""
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"{' -> '.join((*path, module))}"
        if module not in state:
            state[module] = "open"
            for imported in OURS.get(module, set()) - {module.rpartition(".")[0]}:
                visit(imported, (*path, module))
            state[module] = "closed"

    for module in OURS:
        visit(module, ())


def test_no_star_imports_no_eval_and_no_bare_except():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ImportFrom(names=[ast.alias(name="*")]):
                    raise AssertionError(f"{path}: star import")
                case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                    raise AssertionError(f"{path}:{node.lineno}: {name}; text of a model is data")
                case ast.ExceptHandler(type=None):
                    raise AssertionError(f"{path}:{node.lineno}: bare except")


@pytest.mark.parametrize("verb", [v for v in VERBS if (ROOT / "jobs" / f"{v}.py").exists()])
def test_a_verb_loads_on_a_login_node_in_two_seconds_of_processor_time(verb):
    code = f"import sys, time, jobs.{verb}; print(time.process_time(), *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, *heavy = done.stdout.split()
    assert (heavy, float(seconds) < 2.0) == ([], True), done.stdout


def test_a_launch_loads_no_forecast_and_no_report_before_it_needs_them():
    """Its processes, and their thousand siblings on a cluster, would pay for it each time."""
    later = ("jobs.costs", "jobs.sweeps", "jobs.reporting.")
    code = f"import sys, jobs.launch; print(*[m for m in sys.modules if m.startswith({later!r})])"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_a_dry_run_prints_the_plan_without_torch(tmp_path):
    code = (
        "import sys; from jobs.launch import body; code = body(sys.argv[1:]);"
        f" print('loaded:', *[m for m in {HEAVY!r} if m in sys.modules]); sys.exit(code)"
    )
    arguments = ["configs/quickstart.yaml", "--dry-run", "--data", str(tmp_path / "data")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "r000-corpus" in done.stdout and "r003-score" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert not (tmp_path / "data").exists(), "a dry run writes nothing"
