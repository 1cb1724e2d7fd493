"""Where two runs part: in their configurations, in their code, and in what their stages left."""

import filecmp
from collections.abc import Iterator
from pathlib import Path

from jobs.runs.code import code_files as frozen_files
from serl.run.rundir import Run
from serl.stages.kind import Stage

Leaf = str | int | float | bool | list | None


def leaves(value: object, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """A configuration as dotted keys; lists are values."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def changed(first: Run, second: Run) -> list[tuple[str, Leaf, Leaf]]:
    """Keys with other values, in the order of the schema; the name of a run is no difference."""
    a, b = (dict(leaves(run.config.model_dump(mode="json"))) for run in (first, second))
    keys = [k for k in dict.fromkeys([*a, *b]) if k != "name"]
    return [(k, a.get(k), b.get(k)) for k in keys if a.get(k) != b.get(k)]


def code_files(first: Run, second: Run) -> list[str]:
    """Files of the frozen code that one of the two has otherwise, or not at all."""
    roots = first.root / "code", second.root / "code"
    names = {str(path.relative_to(root)) for root in roots for path in frozen_files(root)}
    return sorted(name for name in names if not _same(*(root / name for root in roots)))


def _same(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def parting(first: Run, second: Run) -> str | None:
    """The first stage that both have done with different results; None while there is none."""
    for stage in first.config.stages:
        if second.config.has(stage.round, stage.name):
            mine, theirs = _digests(first, stage), _digests(second, stage)
            if None not in (*mine, *theirs) and mine != theirs:
                return stage.job
    return None


def _digests(run: Run, stage: Stage) -> list[str | None]:
    manifests = map(run.manifest, run.shards(stage.round, stage.name))
    return [m.digest if m else None for m in manifests]
