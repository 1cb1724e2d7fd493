"""A user's own code that a run needs: kinds of stages (`plugins`) and reward functions by import path."""

import importlib.util
import sys
from pathlib import Path

from serl.config.run import RunConfig
from serl.config.schema import Section


def packages_of(config: RunConfig) -> list[Path]:
    """What to copy into a run: the top-level packages that are not installed in this environment."""
    modules = [*config.plugins, *(m for s in config.stages for m in _modules(s.section))]
    found = [_place(name.partition(".")[0]) for name in dict.fromkeys(modules)]
    return list(dict.fromkeys(path for path in found if path and Path(sys.prefix) not in path.parents))


def _modules(section: object) -> list[str]:
    """Modules that a section's reward functions are imported from."""
    if isinstance(section, tuple):
        return [m for part in section for m in _modules(part)]
    if not isinstance(section, Section):
        return []
    values = {name: getattr(section, name) for name in type(section).model_fields}
    own = values.get("kind") == "python" and values.get("text") is None and isinstance(values["path"], str)
    return [values["path"].rpartition(":")[0]] if own else [m for v in values.values() for m in _modules(v)]


def _place(name: str) -> Path | None:
    """Where a top-level module is imported from; None where it is not found, which other checks say."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]) if folders else Path(spec.origin) if spec.origin else None
