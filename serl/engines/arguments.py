"""Which of vLLM's own arguments a configuration may give beside the suite's settings.

Decided without importing vllm: names are read from the text of the installed one (`EngineArgs`). Where none
is installed, as on some login nodes, they are not judged; the job that opens the engine will.
"""

import ast
import difflib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# What the suite decides, and the setting that says it; None where nobody else may.
OURS: dict[str, str | None] = {
    "dtype": "engine.dtype",
    "max_model_len": "engine.max_model_len",
    "kv_cache_memory_bytes": "engine.kv_cache_gib",
    "gpu_memory_utilization": "engine.gpu_memory_utilization",
    "tensor_parallel_size": "engine.tensor_parallel",
    "enforce_eager": "engine.eager",
    "model": None,
    "seed": None,
    "logprobs_mode": None,
    "load_format": None,
    "enable_sleep_mode": None,
    "distributed_executor_backend": None,
    "disable_log_stats": None,
}


def check_arguments(names: Iterable[str]) -> None:
    """Raise ValueError for the first name that the suite decides itself, or that vLLM does not know."""
    known = engine_arguments()
    for name in names:
        if name in OURS:
            setting = OURS[name]
            remedy = f"is set by {setting}" if setting else "is the suite's own to set; leave it out"
            raise ValueError(f"engine.extra.{name}: {remedy}")
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3] + ["..."]
            raise ValueError(f"engine.extra.{name}: vLLM has no such argument; nearest: {', '.join(near)}")


@cache
def engine_arguments() -> frozenset[str]:
    """The fields of the installed vLLM's `EngineArgs`; none where vLLM is not installed."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    source = Path(next(iter(spec.submodule_search_locations))) / "engine" / "arg_utils.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            fields = [f.target for f in node.body if isinstance(f, ast.AnnAssign)]
            return frozenset(f.id for f in fields if isinstance(f, ast.Name))
    raise AssertionError(f"{source}: no class EngineArgs; this vLLM keeps its arguments elsewhere")
