"""Which arguments of vLLM and DeepSpeed a configuration may give as they are, beside the suite's settings.

Decided without importing either: names are read from the text of what is installed. Where it is not, as on
some login nodes, they are not judged; the job that opens the engine will.
"""

import ast
import difflib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# What the suite decides, and the setting that says it; None where nobody else may.
OF_VLLM: dict[str, str | None] = {
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
OF_ZERO: dict[str, str | None] = {"stage": "train.zero", "offload_optimizer": "train.optimizer.offload"}


def check_vllm(names: Iterable[str]) -> None:
    """Raise ValueError for the first name that the suite decides itself, or that vLLM does not know."""
    known = _fields("vllm", "engine/arg_utils.py", "EngineArgs")
    _check(names, "engine.extra", OF_VLLM, known, "vLLM has no such argument")


def check_zero(names: Iterable[str]) -> None:
    """Likewise of DeepSpeed's `zero_optimization`."""
    known = _fields("deepspeed", "runtime/zero/config.py", "DeepSpeedZeroConfig")
    _check(names, "deepspeed", OF_ZERO, known, "DeepSpeed's zero_optimization has no such key")


def _check(
    names: Iterable[str], key: str, ours: dict[str, str | None], known: frozenset[str], unknown: str
) -> None:
    for name in names:
        if name in ours:
            setting = ours[name]
            remedy = f"is set by {setting}" if setting else "is the suite's own to set; leave it out"
            raise ValueError(f"{key}.{name}: {remedy}")
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3] + ["..."]
            raise ValueError(f"{key}.{name}: {unknown}; nearest: {', '.join(near)}")


@cache
def _fields(package: str, path: str, name: str) -> frozenset[str]:
    """The fields of a class of an installed package; none where it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    source = Path(next(iter(spec.submodule_search_locations))) / path
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = [f.target for f in node.body if isinstance(f, ast.AnnAssign)]
            return frozenset(f.id for f in fields if isinstance(f, ast.Name))
    raise AssertionError(f"{source}: no class {name}; this {package} keeps it elsewhere")
