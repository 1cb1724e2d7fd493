"""The quickstart's base model of a seed, for benchmarks that train on from it: made once and kept."""

import shutil
import subprocess
import sys
from pathlib import Path

from serl.run.rundir import Run
from serl.stages.work import corpus_dir
from serl.text.problems import GENERATED_BENCHMARKS

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


def base_run(data: Path, seed: int) -> Run:
    """The run of round 0 alone. Its seeds and labelled problems lie in data/seeds as `SEED-NAME`, its
    benchmarks, which are the same for every seed, in data/benchmarks.
    """
    run = launch(data, QUICKSTART, f"base-seed{seed}", f"seed={seed}", "rounds=0", "score.validation=[]")
    for folder in ("seeds", "benchmarks"):
        (data / folder).mkdir(exist_ok=True)
    for name in ("seeds.jsonl", "problems.jsonl"):
        shutil.copy(corpus_dir(run) / name, data / "seeds" / f"{seed}-{name}")
    for name in GENERATED_BENCHMARKS[:2]:
        shutil.copy(corpus_dir(run) / name, data / "benchmarks" / name)
    return run


def launch(data: Path, config: Path, name: str, *overrides: str) -> Run:
    """The run of that name, finished: begun, or gone on with where there is one."""
    root = (data / "runs" / name).resolve()
    if (root / "run.json").exists():
        verb = ["resume", name]
    else:
        verb = ["launch", str(config), f"name={name}", *overrides]
    command = [sys.executable, "-m", f"jobs.{verb[0]}", "--data", str(data), *verb[1:]]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Run.open(root)
