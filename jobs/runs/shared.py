"""What trials have in common: the keys of shared stages, and who uses them.

A key is a digest of everything that a stage's result depends on: what the stage reads of the configuration,
the keys of the stages before it, the content of inputs from outside (seeds, benchmarks, the base checkpoint),
the code of serl/ and evaluation/, and the locked versions of the packages. Two trials with the same key would
compute the same, so whichever comes first does, into `<data>/shared/<key>`. Shared are the stages up to the
first RL training, which is where the trials of a sweep part. Where a stage runs is in no key, as it is in no
run's digest: a trial that goes on elsewhere takes what is there, as a run that is resumed elsewhere does.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from jobs.runs.code import ROOT
from jobs.runs.find import list_runs
from serl.config.base import Checkpoint, Scratch
from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.engines.hf_folder import model_folder
from serl.run.files import sha256
from serl.run.rundir import Run
from serl.stages.kind import Stage

CODE = {"serl": (".py",), "evaluation": (".py", ".yaml", ".json"), "slurm": (".lock",)}
WEIGHTS = (".safetensors", ".bin")
SMALL_BYTES = 16 * 2**20
SAMPLES, SAMPLE_BYTES = 64, 2**16


@dataclass(slots=True)
class Outside:
    """Fingerprints of what lies outside the runs, each taken once."""

    data: Path
    code: str = field(default_factory=lambda: code_digest())
    _seen: dict[Path, str] = field(default_factory=dict)

    def of(self, path: Path) -> str:
        """Of a file or a folder. Large weights by size and blocks: trained ones differ everywhere."""
        if path not in self._seen:
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            self._seen[path] = _digest([[str(p.relative_to(path)), _fingerprint(p)] for p in files])
        return self._seen[path]


def shared_keys(config: RunConfig, outside: Outside) -> dict[str, str]:
    """By job, of every stage that can be shared: all that come before the first training of a round."""
    keys: dict[str, str] = {}
    for stage in config.stages:
        if stage.round and stage.role:
            break
        before = {s.job: keys[s.job] for s in stage.kind.reads(stage, config)}
        world = config.giving(0, "documents")
        made = keys.get(world.job, "") if world and world != stage else ""
        reads = {name: outside.of(path) for name, path in _outside(stage, config, outside.data).items()}
        keys[stage.job] = _digest([stage.job, _depends(stage, config), before, reads, made, outside.code])
    return keys


def _depends(stage: Stage, config: RunConfig) -> dict[str, object]:
    """The part of a configuration that a stage's result depends on, as JSON."""
    own = dict(stage.kind.depends(stage, config))
    if stage.round and isinstance(config.base, Scratch):
        own.pop("base", None)  # the keys before speak for it
    return {k: v.model_dump(mode="json") if isinstance(v, Section) else v for k, v in own.items()}


def _outside(stage: Stage, config: RunConfig, data: Path) -> dict[str, Path]:
    """What a stage reads from outside the run."""
    found = dict(stage.kind.outside(stage, config, data))
    if isinstance(config.base, Checkpoint) and not stage.kind.bare:
        found["base"] = model_folder(config.base.path, data)
    return found


def code_digest() -> str:
    files = sorted(
        p for package, endings in CODE.items() for p in (ROOT / package).rglob("*") if p.suffix in endings
    )
    return _digest([[str(p.relative_to(ROOT)), sha256(p)] for p in files])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint(path: Path) -> list[int | str]:
    try:
        size = path.stat().st_size
        if size <= SMALL_BYTES or path.suffix not in WEIGHTS:
            return [size, sha256(path)]
        content = hashlib.sha256()
        with open(path, "rb") as f:
            for block in range(SAMPLES):
                f.seek(block * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                content.update(f.read(SAMPLE_BYTES))
        return [size, content.hexdigest()]
    except FileNotFoundError:
        return [0, "missing"]  # the checks before a launch say so


# --------------------------------------------------------------------------------------------- users
def users(data: Path) -> dict[str, list[str]]:
    """Of every shared result the runs that use it. A damaged run might use any, so it is an error."""
    found: dict[str, list[str]] = {}
    for root in list_runs(data):
        for key in Run.open(root).shared.values():
            found.setdefault(key, []).append(root.name)
    return found
