"""Where a run runs: the cluster file's schema, outside every digest."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, field_serializer, field_validator

from jobs.plan import limits
from serl.config.files import load_tagged
from serl.config.run import RunConfig
from serl.config.schema import Count, Fraction, Natural, Positive, Section
from serl.stages import kinds
from serl.stages.kind import Kind, Stage

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Device = Literal["cpu", "cuda"]


class ClusterFile(Section):
    """What every cluster file says."""

    data: str = Field(description="the data root; $SERL_DATA and --data go before it")
    hang_s: Count = Field(
        default=1800,
        description="seconds that a step, part, load, save ... may last before it counts as hung; ten times "
        "the longest one so far if that is more",
    )


class Local(ClusterFile):
    """This machine, without Slurm."""

    kind: Literal["local"] = "local"
    data: str = "data"
    cores: Count | None = Field(
        default=None, description="null: all that this process may use, by its affinity and its cgroup"
    )
    gpus: int | None = Field(
        default=None,
        ge=0,
        description="how many; null: all that CUDA_VISIBLE_DEVICES gives, or the NVIDIA driver lists",
    )
    train_ranks: Count | None = Field(default=None, description="null: one per GPU, or two on CPUs")
    max_attempts: Count = Field(
        default=3, description="tries of a shard whose process was killed from outside"
    )


class Stragglers(Section):
    """When a shard is far beyond its siblings: it is started a second time, and the first commit wins."""

    factor: Positive = Field(
        default=3.0, description="so many times the median of the siblings that are done"
    )
    min_done: Fraction = Field(default=0.5, description="not before this share of them is done")


class Resources(Section):
    """What one job of a stage asks for."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time_min: Count = 240
    nodes: Count = 1
    tasks_per_node: Count = Field(
        default=1,
        description="ranks of a training on a node; of a generating stage, where its own entry says so, the "
        "engines that share a shard and the job's GPUs",
    )
    cpus_per_task: Count = 8
    gpus_per_node: Natural = 1
    mem_gb: Count | None = Field(
        default=64, description="of a node; null: no word of memory, for sites that give it by cores or GPUs"
    )
    extra: dict[str, str | int | bool] = Field(
        default={}, description="more sbatch parameters, as {exclude: node13}"
    )

    @property
    def ranks(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def device(self) -> Device:
        return "cuda" if self.gpus_per_node else "cpu"

    def told(self) -> dict[str, object]:
        """What was said, without defaults."""
        return {key: getattr(self, key) for key in self.model_fields_set}


class Slurm(Resources, ClusterFile):
    """A Slurm cluster with a file system that all its nodes share. The keys of `Resources` are for all stages
    that do not say otherwise.
    """

    kind: Literal["slurm"] = "slurm"
    array_limit: Count = Field(default=64, description="running tasks of one array at once")
    signal_s: Count = Field(
        default=120,
        description="seconds before the time limit at which USR2 asks a job to stop; a save and a step must "
        "fit",
    )
    setup: tuple[str, ...] = Field(default=(), description="shell lines before python on the node")
    python: str | None = Field(
        default=None, description="what runs python on a node; null: the interpreter that launches"
    )
    max_attempts: Count = Field(
        default=20, description="tries of a shard without any progress before its job holds itself"
    )
    stragglers: Stragglers | None = Field(
        default=None,
        description="null: a slow shard is waited for; {} or {factor: 3, min_done: 0.5}: it gets a spare job",
    )
    stages: dict[str, Resources] = Field(
        default={}, description="what differs, by a stage's name or its kind's; null keeps what all have"
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _without_nulls(cls, stages: object) -> object:
        if not isinstance(stages, dict):
            return stages
        return {
            name: {k: v for k, v in keys.items() if v is not None} if isinstance(keys, dict) else keys
            for name, keys in stages.items()
        }

    @field_serializer("stages")
    def _as_said(self, stages: dict[str, Resources]) -> dict[str, object]:
        return {name: own.told() for name, own in stages.items()}

    def resources(self, stage: Stage) -> Resources:
        """The stage's own keys over the cluster's; a stage that is one task stays one."""
        return self.resources_of(stage.kind, stage.listed)

    def resources_of(self, kind: Kind, name: str = "") -> Resources:
        """As for a stage of that kind and name."""
        told = (self.stages.get(name) or self.stages.get(kind.name) or Resources()).told()
        chosen = {key: told.get(key, getattr(self, key)) for key in Resources.model_fields}
        if not kind.ranks:
            chosen |= {"nodes": 1, "tasks_per_node": told.get("tasks_per_node", 1) if kind.array else 1}
        if kind.bare and "gpus_per_node" not in told:
            chosen["gpus_per_node"] = 0
        return Resources(**chosen)

    def errand(self) -> Resources:
        """What a small task of our own asks for: as stages without an engine, if the file has any."""
        bare = [kind for kind in kinds().values() if kind.bare]
        return self.resources_of(next((kind for kind in bare if kind.name in self.stages), bare[0]))

    def unknown(self, config: RunConfig) -> list[str]:
        """Keys of `stages` that are neither a stage of the run nor a kind."""
        known = {s.name for s in config.stages} | set(kinds(config.plugins))
        return sorted(set(self.stages) - known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one task of a stage holds. A slot is a core or GPU of this machine, or a node."""

    slots: int
    ranks: int
    gpus: int


class Machine(Section):
    """What `Local` amounts to here: resolved numbers."""

    cores: Count
    gpus: tuple[str, ...]
    train_ranks: Count
    memory_bytes: int = Field(default=0, ge=0, description="free for this process; 0: not known")

    @property
    def device(self) -> Device:
        return "cuda" if self.gpus else "cpu"

    @property
    def slots(self) -> int:
        """How many vLLM engines or trainer ranks may run side by side."""
        return len(self.gpus) or self.cores


KINDS: dict[str, type[Local] | type[Slurm]] = {"local": Local, "slurm": Slurm}


def load_cluster(name: str) -> Local | Slurm:
    """The cluster file of that name in configs/clusters, or at that path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / "clusters" / f"{name}.yaml"
    return load_tagged(KINDS, path)


def this_machine(local: Local) -> Machine:
    cores = local.cores or limits.cores()
    given = _given_gpus(local.gpus)
    if local.gpus is not None and local.gpus > len(given):
        raise ValueError(
            f"gpus {local.gpus}: CUDA_VISIBLE_DEVICES gives {len(given)}; lower it in the cluster file, or "
            "unset the variable"
        )
    gpus = given[: local.gpus]
    ranks = local.train_ranks or len(gpus) or min(2, cores)
    if gpus and ranks > len(gpus):
        raise ValueError(
            f"train_ranks {ranks}: this machine has {len(gpus)} GPUs; lower it in the cluster file"
        )
    return Machine(cores=cores, gpus=gpus, train_ranks=ranks, memory_bytes=limits.memory_bytes())


def room_of(cluster: Local | Slurm, config: RunConfig, stage: Stage) -> Room:
    match cluster:
        case Local():
            machine = this_machine(cluster)
            wide = 1 if stage.kind.bare else stage.kind.held(stage.section, config).tensor_parallel
            slots = min(machine.train_ranks if stage.kind.ranks else wide, machine.slots)
            ranks = machine.train_ranks if stage.kind.ranks else 1
            return Room(slots=slots, ranks=ranks, gpus=slots if machine.gpus else 0)
        case Slurm():
            own = cluster.resources(stage)
            return Room(slots=own.nodes, ranks=own.ranks, gpus=own.nodes * own.gpus_per_node)


def _given_gpus(wanted: int | None) -> tuple[str, ...]:
    """The GPUs that this process may use, under the names that CUDA has for them: indices, UUIDs, or parts of
    one (MIG). As in CUDA, the first name that is none ends the list.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return tuple(map(str, range(_count_gpus() if wanted is None else wanted)))
    names = (name.strip() for name in told.split(","))
    named = itertools.takewhile(lambda name: name.isdecimal() or name.startswith(("GPU-", "MIG-")), names)
    return tuple(named)


def _count_gpus() -> int:
    """NVIDIA's driver lists one folder per GPU; no library is loaded to find out."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
