"""Where a run runs: the cluster file's schema, outside every digest."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from serl.config import Count, Section
from serl.configfile import load

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class Local(Section):
    """This machine, without Slurm."""

    kind: Literal["local"] = "local"
    data: str = Field(default="data", description="the data root; $SERL_DATA and --data go before it")
    cores: Count | None = Field(default=None, description="null: all that this process may use")
    gpus: int | None = Field(default=None, ge=0, description="null: all that nvidia-smi lists")
    train_ranks: Count | None = Field(default=None, description="null: one per GPU, or two on CPUs")
    max_attempts: Count = Field(default=3, description="tries of a shard whose process was killed from outside")


class Machine(Section):
    """What `Local` amounts to here: resolved numbers."""

    cores: Count
    gpus: tuple[int, ...]
    train_ranks: Count

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus else "cpu"

    @property
    def slots(self) -> int:
        """How many vLLM engines or trainer ranks may run side by side."""
        return len(self.gpus) or self.cores


def load_cluster(name: str) -> Local:
    """The cluster file of that name in configs/clusters, or at that path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / "clusters" / f"{name}.yaml"
    return load(Local, path)


def this_machine(local: Local) -> Machine:
    cores = local.cores or len(os.sched_getaffinity(0))
    gpus = tuple(range(local.gpus if local.gpus is not None else _count_gpus()))
    ranks = local.train_ranks or len(gpus) or min(2, cores)
    if gpus and ranks > len(gpus):
        raise ValueError(f"train_ranks {ranks}: this machine has {len(gpus)} GPUs; lower it in the cluster file")
    return Machine(cores=cores, gpus=gpus, train_ranks=ranks)


def _count_gpus() -> int:
    """NVIDIA's driver lists one folder per GPU; no library is loaded to find out."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
