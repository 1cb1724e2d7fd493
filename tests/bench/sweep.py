"""A sweep of 3 algorithms x 3 seeds on a real Slurm (`slurm/lab`) with the real vLLM and DeepSpeed, its launcher killed in the middle.

`python tests/bench/sweep.py [--config configs/quickstart.yaml] [--rounds 1] [--lanes 3] [--folder DIR] [--port N]` starts its own lab and prints
results, shards computed more than once, and how often each shared stage was computed. The default is the flow tests' tiny quickstart.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/flow")]

import yaml
from lab import slurm, start_lab, wait_until

from evaluation.summary import summarise
from jobs.plan.chain import plan
from serl.run.events import read_events
from serl.run.rundir import Run
from serl.stages.exams import round_grades

CLUSTER = {
    "kind": "slurm", "partition": "low", "time_min": 60, "signal_s": 60, "cpus_per_task": 1, "gpus_per_node": 0, "mem_gb": 1, "array_limit": 2,
    "stages": {"train": {"nodes": 2}},
}  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", type=Path, default=ROOT / "tests/flow/tiny.yaml")
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--lanes", type=int, default=2)
    p.add_argument("--patience-min", type=float, default=240)
    p.add_argument("--folder", type=Path, default=None)
    p.add_argument("--port", default=None)
    args = p.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    data, sweep = folder / "data", _write(folder, args)
    lab = start_lab(folder / "lab", *(["--port", args.port] if args.port else []))
    try:
        begun = time.monotonic()
        _killed(data, sweep, folder / "cluster.yaml")
        print(_verb(sweep, folder / "cluster.yaml", data), flush=True)
        wait_until(
            lambda: not slurm("squeue", "--noheader").strip(),
            "the sweep to end",
            patience_s=60 * args.patience_min,
        )
        report(data, time.monotonic() - begun)
    finally:
        lab("stop")


def _write(folder: Path, args: argparse.Namespace) -> Path:
    (folder / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER | {"data": str(folder / "data")}))
    algorithms = [{"kind": kind} for kind in ("reinforce_pp", "grpo", "rloo")]
    content = {
        "name": "algorithms", "base": str(args.config.resolve()), "overrides": {"rounds": args.rounds}, "replicates": list(range(args.seeds)),
        "space": {"kind": "grid", "over": {"train.objective": algorithms}}, "cap": {"lanes": args.lanes},
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return folder / "sweep.yaml"


def _start(sweep: Path, cluster: Path, data: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "jobs.sweep", str(sweep), "--cluster", str(cluster), "--data", str(data)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _killed(data: Path, sweep: Path, cluster: Path) -> None:
    """kill -9 once a third of the trials have something in the queue."""
    launcher = _start(sweep, cluster, data)
    wait_until(
        lambda: launcher.poll() is not None or len(list(data.glob("runs/*/slurm.jsonl"))) >= 3,
        "the launcher to be in the middle",
    )
    launcher.kill()
    said, _ = launcher.communicate()
    print(
        f"launcher killed with {len(list(data.glob('runs/*/slurm.jsonl')))} trials submitted {said.strip()}",
        flush=True,
    )


def _verb(sweep: Path, cluster: Path, data: Path) -> str:
    launcher = _start(sweep, cluster, data)
    said, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, said
    return said


def report(data: Path, seconds: float) -> None:
    runs = [Run.open(p.parent) for p in sorted((data / "runs").glob("*/run.json"))]
    done = [run for run in runs if all(not job.missing for job in plan(run.config, run.done))]
    ends: Counter[tuple[Path, int]] = Counter()
    for run in runs:
        for event in read_events(run.root / "events"):
            if event["kind"] == "done" and event.get("stage") != "train":
                ends[run.stage_dir(event["round"], event["stage"]), event["shard"]] += 1
    shared = Counter(name for run in runs for name in run.shared)
    versions = {name: len({run.shared[name] for run in runs}) for name in shared}
    print(
        f"{len(done)} results of {len(runs)} trials in {seconds:.0f} s; {sum(n > 1 for n in ends.values())} shards computed more than once"
    )
    for name, wanted in shared.items():
        print(f"  {name}: wanted by {wanted} trials, computed {versions[name]} times")
    for run in done:
        greedy = summarise(round_grades(run, run.config.rounds))["arithmetic"].metrics["pass_at_1"]
        print(
            f"  {run.root.name} {run.config.training(1).section.objective.kind} seed {run.config.seed}: arithmetic {greedy.value:.3f} +- {greedy.stderr:.3f}"
        )


if __name__ == "__main__":
    main()
