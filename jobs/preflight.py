"""What can be checked before anything is created or loaded: inputs, models, benchmarks, space."""

import os
import shutil
from pathlib import Path

from evaluation.benchmark import load_benchmark, load_problems as load_benchmark_problems
from serl.config import Checkpoint, RunConfig
from serl.hf_folder import validate_model_folder
from serl.problems import GENERATED_BENCHMARKS, load_problems

MARGIN_BYTES = 200 * 2**20


def preflight(config: RunConfig, data: Path, root: Path, *, bytes_needed: int) -> None:
    """Raises ValueError for the first thing a user has to mend."""
    _check_space(data, bytes_needed)
    if isinstance(config.base, Checkpoint):
        path = Path(config.base.path)
        validate_model_folder(path if path.is_absolute() else data / "models" / path)
    sources = [config.seeds, config.respond.problems.source if config.respond and config.respond.problems else None]
    for source in sources:
        if source and source.kind != "corpus":
            load_problems(source, data_root=data, corpus=root)
    for name in config.score.benchmarks if config.score else ():
        benchmark = load_benchmark(name)
        if not (benchmark.file in GENERATED_BENCHMARKS and config.base.kind == "scratch"):
            load_benchmark_problems(benchmark, [data / "benchmarks"])


def _check_space(data: Path, bytes_needed: int) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        probe = data / f".write-probe.{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as e:
        raise ValueError(f"{data}: the data root is not writable ({e.strerror}); choose another with --data or $SERL_DATA") from e
    free = shutil.disk_usage(data).free
    if free < bytes_needed + MARGIN_BYTES:
        raise ValueError(
            f"{data}: {free / 1e9:.1f} GB free, but the run may write {bytes_needed / 1e9:.1f} GB; free some space, choose another data root, or run fewer rounds"
        )
