"""Memory of a machine without GPUs, shared out among the engines that run on it at once."""

from dataclasses import dataclass
from pathlib import Path

from jobs.plan.cluster import Machine, Resources
from serl.config.base import Checkpoint
from serl.config.run import RunConfig
from serl.engines.hf_folder import model_folder
from serl.engines.room import GIB, Size, size_of
from serl.stages.kind import Stage

TRAINING_BYTES = 16  # of a weight that is trained beside its engine: master, gradient, two moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many engines run at once, each with so large a cache of keys and values; `scarce` where memory is
    for fewer than cores are.
    """

    engines: int
    cache_gib: float
    scarce: bool = False


def share_here(stage: Stage, config: RunConfig, machine: Machine, data: Path) -> Share | None:
    """What a task of a stage gets of this machine; None where it has no engine, or GPUs. Raises ValueError
    where not a single one fits.
    """
    if machine.gpus or not machine.memory_bytes or not stage.kind.samples(stage.section):
        return None
    engine = stage.kind.held(stage.section, config)
    at_once = (
        machine.train_ranks
        if stage.kind.ranks
        else min(stage.num_shards, machine.slots // engine.tensor_parallel)
    )
    size, at_once = _size(config, data), max(1, at_once)
    beside = TRAINING_BYTES * size.weights if stage.kind.ranks else 0
    least, room = size.least_bytes(engine) + beside, machine.memory_bytes
    fitting = min(at_once, int(room // least))
    if fitting < 1 or (stage.kind.ranks and fitting < at_once):
        raise ValueError(_too_large(stage, config, least, room, at_once if stage.kind.ranks else 1))
    cache_gib = size.cache_gib(engine, room // fitting - beside)
    return Share(engines=fitting, cache_gib=cache_gib, scarce=fitting < at_once)


def share_on_node(stage: Stage, config: RunConfig, own: Resources, data: Path) -> Share | None:
    """The same of a job on a cluster, of the memory that it asks for."""
    if own.gpus_per_node or own.mem_gb is None or not stage.kind.samples(stage.section):
        return None
    engine, size = stage.kind.held(stage.section, config), _size(config, data)
    beside = TRAINING_BYTES * size.weights if stage.kind.ranks else 0
    room = own.mem_gb * GIB // own.tasks_per_node
    return Share(engines=own.tasks_per_node, cache_gib=size.cache_gib(engine, room - beside))


def _size(config: RunConfig, data: Path) -> Size:
    match config.base:
        case Checkpoint():
            return size_of(model_folder(config.base.path, data))
        case scratch:
            a = scratch.architecture
            per_layer = 4 * a.hidden**2 + 3 * a.hidden * a.intermediate
            weights = a.vocabulary * a.hidden + a.layers * per_layer
            return Size(weights=weights, kept_numbers=2 * a.layers * a.hidden)


def _too_large(stage: Stage, config: RunConfig, least: int, room: int, at_once: int) -> str:
    asked = stage.kind.held(stage.section, config).kv_cache_gib
    each = f"each of {at_once} engines" if at_once > 1 else "an engine"
    cache = f"{asked:g}" if asked else "not given, so one text of engine.max_model_len"
    needs = f"{each} of {stage.listed} needs {least / GIB:.1f} GiB with its weights"
    return (
        f"engine.kv_cache_gib ({cache}): {needs}, and this machine has {room / GIB:.1f} GiB free; lower "
        "engine.kv_cache_gib or engine.max_model_len, set engine.dtype to bfloat16, choose a smaller model, "
        "or free some memory"
    )
