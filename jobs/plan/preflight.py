"""What can be checked before anything is created or loaded: inputs, models, benchmarks, space."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmark import load_benchmark
from evaluation.benchmark import load_problems as load_benchmark_problems
from jobs.plan.chain import Estimate, Job, bytes_needed, estimate
from jobs.plan.cluster import Local, Slurm, this_machine
from serl.config.base import Checkpoint, Scratch
from serl.config.run import RunConfig, too_few_seeds
from serl.engines.hf_folder import model_folder, validate_context, validate_model_folder
from serl.text.problems import GENERATED_BENCHMARKS, load_problems

MARGIN_BYTES = 200 * 2**20


def preflight(config: RunConfig, data: Path, root: Path, jobs: Sequence[Job]) -> None:
    """Raises ValueError for the first thing a user has to mend before `jobs` can run."""
    if isinstance(config.base, Checkpoint):
        folder = model_folder(config.base.path, data)
        validate_model_folder(folder)
        validate_context(folder, config.engine.max_model_len)
    check_space(data, bytes_needed(bounds(config, jobs, data)))
    sources = [
        config.seeds,
        config.respond.problems.source if config.respond and config.respond.problems else None,
    ]
    for source in sources:
        if source and source.kind != "corpus":
            problems = load_problems(source, data_root=data, corpus=root)
            if source is config.seeds and (
                problem := next(
                    too_few_seeds(config, len(problems), f"the configured source has {len(problems)}"), ""
                )
            ):
                raise ValueError(problem)
    for name in config.score.asked if config.score else ():
        benchmark = load_benchmark(name)
        if benchmark.kind == "choice" and config.score and name in config.score.preamble:
            raise ValueError(
                f"score.preamble.{name}: a choice benchmark brings worked examples of its own (score.choice_shots); leave it out"
            )
        if not (benchmark.file in GENERATED_BENCHMARKS and config.base.kind == "scratch"):
            load_benchmark_problems(benchmark, [data / "benchmarks"])


def bounds(config: RunConfig, jobs: Sequence[Job], data: Path) -> list[Estimate]:
    """What each of `jobs` writes at most."""
    parameters, rows = num_parameters(config, data), rows_of_files(config, data)
    return [estimate(config, job, parameters, rows) for job in jobs]


def rows_of_files(config: RunConfig, data: Path) -> dict[str, int]:
    """How many problems the benchmarks have whose description does not tell; those that the run makes itself, or whose file is not there, are left out."""
    rows = {}
    for name in config.score.asked if config.score and not isinstance(config.base, Scratch) else ():
        benchmark = load_benchmark(name)
        if benchmark.num_rows is None and (data / "benchmarks" / benchmark.file).is_file():
            rows[name] = len(load_benchmark_problems(benchmark, [data / "benchmarks"]))
    return rows


def check_engine(config: RunConfig, cluster: Local | Slurm) -> None:
    """Raises ValueError where an engine wants more GPUs, or cores where there are none, than one task has."""
    match cluster:
        case Local():
            machine = this_machine(cluster)
            room = {f"this machine's {'GPUs' if machine.gpus else 'cores'}": machine.slots}
        case Slurm():
            own = {
                stage: cluster.resources(stage)
                for stage in ("propose", "respond", "score")
                if stage in config.stages
            }
            room = {
                f"{'gpus_per_node' if r.gpus_per_node else 'cpus_per_task'} of {stage} in the cluster file": r.gpus_per_node
                or r.cpus_per_task
                for stage, r in own.items()
            }
    for place, most in room.items():
        if config.engine.tensor_parallel > most:
            raise ValueError(
                f"engine.tensor_parallel {config.engine.tensor_parallel}: more than {place}, {most}; lower the one or raise the other"
            )


def num_parameters(config: RunConfig, data: Path) -> int:
    """About how many weights the policy has; 0 where its folder cannot be found."""
    match config.base:
        case Scratch(architecture=a):
            return a.vocabulary * a.hidden + a.layers * (4 * a.hidden**2 + 3 * a.hidden * a.intermediate)
        case Checkpoint():
            folder = model_folder(config.base.path, data)
            return sum(p.stat().st_size for p in folder.glob("*.safetensors")) // 2 if folder.is_dir() else 0


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
            f"{data}: {free / 1e9:.1f} GB free, but the run may write {needed / 1e9:.1f} GB, and {MARGIN_BYTES / 1e9:.1f} GB should stay free; free some space, choose another data root, or run fewer rounds"
        )
