"""What can be checked before anything is created or loaded: inputs, models, benchmarks, space."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from jobs.plan.chain import Job, bounds_of
from jobs.plan.cluster import Local, Slurm, this_machine
from jobs.plan.memory import share_here
from serl.config.base import Checkpoint, Scratch
from serl.config.run import RunConfig
from serl.engines.hf_folder import (
    model_folder,
    validate_context,
    validate_model_folder,
    validate_tokens,
    validate_trainable,
)
from serl.engines.room import size_of
from serl.stages.kind import Bounds, Stage, World

ROOT = Path(__file__).resolve().parents[2]
MARGIN_BYTES = 200 * 2**20


def preflight(config: RunConfig, data: Path, jobs: Sequence[Job]) -> None:
    """Raises ValueError for the first thing a user has to mend before `jobs` can run."""
    if isinstance(config.base, Checkpoint):
        folder = model_folder(config.base.path, data)
        validate_model_folder(folder)
        validate_context(folder, config.engine.max_model_len)
        validate_tokens(folder)
        if any(stage.role for stage in config.stages):
            validate_trainable(folder)
    most = bounds(config, jobs, data)
    passing = max((b.temporary_bytes for b in most), default=0)  # the largest of what goes again
    check_space(data, sum(b.bytes for b in most) + passing)
    for stage in distinct(config):
        stage.kind.check(stage, config, data)


def check_trainable(configs: Sequence[RunConfig], data: Path) -> None:
    """Raises ValueError where a base model cannot be trained, by a dry load in a process of its own: that
    takes some seconds, and torch. On a login node without it the job that trains will tell.
    """
    if find_spec("torch") is None:
        return
    trained = (c for c in configs if any(stage.role for stage in c.stages))
    paths = dict.fromkeys(c.base.path for c in trained if isinstance(c.base, Checkpoint))
    for folder in (model_folder(path, data) for path in paths):
        command = [sys.executable, "-W", "ignore", "-m", "serl.engines.dry", str(folder)]
        env = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
        told = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        said = told.stdout.strip().splitlines() if told.returncode == 0 else told.stderr.strip().splitlines()
        if said and said[-1]:
            raise ValueError(
                f"{folder}: cannot be trained: {said[-1]}; choose another model, or score it "
                "(configs/evaluation.yaml)"
            )


def distinct(config: RunConfig) -> list[Stage]:
    """One of those that differ in round or milestone alone: what is outside a run is the same."""
    listed = (s for s in reversed(config.stages) if not s.milestone)
    return list({(s.phase, s.name): s for s in listed}.values())[::-1]


def bounds(config: RunConfig, jobs: Sequence[Job], data: Path) -> list[Bounds]:
    """What each of `jobs` writes at most."""
    world = world_of(config, data)
    return [bounds_of(config, job, world) for job in jobs]


def world_of(config: RunConfig, data: Path) -> World:
    """What is to be known of inputs before there can be bounds."""
    rows: dict[str, int] = {}
    for stage in distinct(config):
        rows |= stage.kind.rows(stage, config, data)
    return World(num_parameters=num_parameters(config, data), rows=rows)


def check_engine(config: RunConfig, cluster: Local | Slurm, data: Path) -> None:
    """Raises ValueError where an engine wants more GPUs, or cores where there are none, than one task has, or
    more memory than this machine.
    """
    if isinstance(cluster, Slurm) and (unknown := cluster.unknown(config)):
        names = ", ".join(dict.fromkeys(s.name for s in config.stages))
        raise ValueError(
            f"stages: {', '.join(unknown)} in the cluster file: no stage of this run, nor a kind of stage; "
            "its stages "
            f"are {names}"
        )
    for stage in (s for s in distinct(config) if s.kind.array):
        wanted = stage.kind.held(stage.section, config).tensor_parallel
        place, most = _room(cluster, stage)
        if wanted > most:
            raise ValueError(
                f"engine.tensor_parallel {wanted}: more than {place}, {most}; lower the one or raise the "
                "other"
            )
    if isinstance(cluster, Local):
        machine = this_machine(cluster)
        for stage in distinct(config):
            share_here(stage, config, machine, data)


def _room(cluster: Local | Slurm, stage: Stage) -> tuple[str, int]:
    """What one task of a stage has of what engines use, in words and in numbers."""
    match cluster:
        case Local():
            machine = this_machine(cluster)
            return f"this machine's {'GPUs' if machine.gpus else 'cores'}", machine.slots
        case Slurm():
            own = cluster.resources(stage)
            if not own.gpus_per_node:
                return f"cpus_per_task of {stage.name} in the cluster file", own.cpus_per_task
            each = f" for each of its {own.tasks_per_node} tasks" if own.tasks_per_node > 1 else ""
            most = own.gpus_per_node // own.tasks_per_node
            return f"gpus_per_node of {stage.name} in the cluster file{each}", most


def num_parameters(config: RunConfig, data: Path) -> int:
    """About how many weights the base model has; 0 where its folder cannot be found."""
    match config.base:
        case Scratch(architecture=a):
            per_layer = 4 * a.hidden**2 + 3 * a.hidden * a.intermediate
            return a.vocabulary * a.hidden + a.layers * per_layer
        case Checkpoint():
            folder = model_folder(config.base.path, data)
            return size_of(folder).weights


def check_space(data: Path, needed: int) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        probe = data / f".write-probe.{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as e:
        raise ValueError(
            f"{data}: the data root is not writable ({e.strerror}); choose another with --data or $SERL_DATA"
        ) from e
    free = shutil.disk_usage(data).free
    if free < needed + MARGIN_BYTES:
        raise ValueError(
            f"{data}: {free / 1e9:.1f} GB free, but the run may write {needed / 1e9:.1f} GB, and "
            f"{MARGIN_BYTES / 1e9:.1f} GB should stay free; free some space, choose another data root, or "
            "run fewer rounds"
        )
