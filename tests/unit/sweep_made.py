"""A sweep as its trials would leave it, made up: two objectives, two learning rates, three seeds, one round."""

import copy
import json
from pathlib import Path

from report_run import grades, publish

from jobs.sweeps.schema import SweepConfig
from jobs.sweeps.trials import Sweep, Trial, save_sweep
from serl.records import to_jsonl
from serl.run.rundir import Run, Shard
from tests.conftest import run_config

SKILLS = {("grpo", 1e-5): 0.8, ("grpo", 1e-4): 0.5, ("rloo", 1e-5): 0.6, ("rloo", 1e-4): 0.5}
NUM = 80
SCORE = {"shards": 1, "benchmarks": ["sums"], "validation": ["check"], "max_tokens": 64}
SWEEP = {
    "name": "made",
    "base": "base.yaml",
    "space": {"kind": "list", "trials": [{"train.objective": {"kind": "grpo"}}]},
}


def make_sweep(data: Path, tree: dict, seeds: tuple[int, ...] = (0, 1, 2)) -> Sweep:
    trials = [
        Trial(
            id=f"{kind}{lr:g}-{seed}",
            run=f"made-{kind}{lr:g}-{seed}",
            overrides={"train.objective": {"kind": kind}, "train.optimizer.lr": lr, "seed": seed},
        )
        for kind, lr in SKILLS
        for seed in seeds
    ]
    sweep = Sweep(name="made", config=SweepConfig.model_validate(SWEEP, strict=False), trials=tuple(trials))
    save_sweep(data, sweep)
    for trial in trials:
        make_trial(data, tree, trial)
    return sweep


def make_trial(data: Path, tree: dict, trial: Trial) -> Run:
    tree = copy.deepcopy(tree)
    tree |= {"name": trial.run, "stages": [*tree["stages"], "score"], "score": SCORE, "rounds": 1}
    tree["propose"]["shards"] = tree["respond"]["shards"] = 1
    return Run.create(data / "runs" / trial.run, run_config(tree), "0123abc")


def finish(run: Run, trial: Trial, *, rounds: tuple[int, ...] = (0, 1)) -> None:
    """Every stage, of which the report of a sweep reads the scores alone."""
    skill = SKILLS[trial.overrides["train.objective"]["kind"], trial.overrides["train.optimizer.lr"]]
    seed = int(json.dumps(trial.overrides["seed"]))
    for round in rounds:
        for stage in ("propose", "curate", "respond", "train") if round else ():
            if not run.done(Shard(round=round, stage=stage, index=0, count=1)):
                publish(run, round, stage, 0, b"", {})
        rows = [
            row for i, name in enumerate(("sums", "check"))
            for row in grades(name, NUM, (skill if round else 0.4) + 0.02 * (seed - 1), 10 * round + 100 * seed + i) if row.mode == "greedy"
        ]  # fmt: skip
        publish(run, round, "score", 0, to_jsonl(rows), {"problems": 2 * NUM})
