"""The kinds of stages: a room each. This module is the only door to them.

What a kind is, `kind.Kind` says; what a stage function is told, `work.Work`.
"""

import importlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from serl.stages.kind import Kind

HOME = Path(__file__).parent


def kind(name: str, plugins: Sequence[str] = ()) -> Kind | None:
    """The kind of that name; of the packages in `plugins`, the one whose last word it is."""
    own = {p.rpartition(".")[2]: p for p in plugins}
    package = own.get(name) or (f"{__name__}.{name}" if name in built_in() else None)
    return _load(name, package) if package else None


def kinds(plugins: Sequence[str] = ()) -> dict[str, Kind]:
    """Every kind there is, by name."""
    names = sorted({*built_in(), *(p.rpartition(".")[2] for p in plugins)})
    return {name: found for name in names if (found := kind(name, plugins))}


@cache
def built_in() -> tuple[str, ...]:
    return tuple(sorted(p.parent.name for p in HOME.glob("*/spec.py")))


@cache
def _load(name: str, package: str) -> Kind:
    try:
        found = importlib.import_module(f"{package}.spec").KIND
    except (ImportError, AttributeError) as e:
        raise ValueError(
            f"plugins: {package}: {e}; a kind is a package with spec.py, which sets KIND, and run.py; "
            "put its folder into PYTHONPATH"
        ) from e
    if not isinstance(found, Kind):
        wrong = f"plugins: {package}.spec.KIND is no serl.stages.kind.Kind"
        raise ValueError(wrong)  # noqa: TRY004 (the user's configuration is wrong)
    found.name, found.package = name, package
    return found
