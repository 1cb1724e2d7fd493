"""Predicted against measured on a real Slurm: how long a two-round chain takes on other nodes, array limits and preemption rates.

One run on the lab of slurm/lab (engines are quick stand-ins that sleep) calibrates; then each setting is predicted before it is run.

    slurm/python tests/bench/forecast.py [--folder F]
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/flow")]

from lab import STAND_IN, Trial, new_trial, preempt, slurm, start_lab, wait_until

from jobs.costs.accounting import account
from jobs.costs.calibration import Calibration, cluster_label
from jobs.costs.forecast import forecast
from jobs.costs.ledger import ledger
from jobs.costs.measured import learn
from jobs.costs.simulate import Interval, World
from jobs.plan.chain import plan
from jobs.plan.cluster import load_cluster
from serl.run.rundir import Run

SETUP = ("export SERL_TEST_CALL_S=2 SERL_TEST_STEP_S=1.5 SERL_TEST_LOAD_S=2",)
GRACE_S, REQUEUE_S = 20.0, 8.0
TRAIN = {
    "objective": {"kind": "reinforce_pp"},
    "optimizer": {"lr": 1e-4},
    "batch_samples": 1,
    "max_steps": 12,
    "checkpoint_every": 4,
}


@dataclass(frozen=True)
class Setting:
    """What differs from the run that calibrated: four nodes, two shards, nothing taken away."""

    name: str
    nodes: int
    array_limit: int
    shards: int
    preempt_per_hour: float = 0.0


SETTINGS = (
    Setting("four shards on four nodes", 4, 8, 4),
    Setting("four shards on two nodes", 2, 8, 4),
    Setting("four shards, array limit 1", 4, 1, 4),
    Setting("each node taken away 90 times an hour", 4, 8, 2, 90.0),
)


def trial(folder: Path, shards: int, array_limit: int) -> Trial:
    config = {
        "propose": STAND_IN["propose"] | {"shards": shards},
        "respond": STAND_IN["respond"] | {"shards": shards},
        "train": TRAIN,
    }
    return new_trial(folder, config=config, cluster={"array_limit": array_limit, "time_min": 30}, setup=SETUP)


def play(t: Trial, disturb: Callable[[threading.Event], int] | None = None) -> tuple[float, int]:
    """Submit and wait; seconds from the first submission to the last manifest, and how many nodes were taken away."""
    begun, stop, taken = time.time(), threading.Event(), []
    worker = threading.Thread(target=lambda: taken.append(disturb(stop) if disturb else 0))
    t.submit()
    worker.start()
    try:
        wait_until(t.done, f"{t.run.root.name} to be done", t.explain, patience_s=900)
    finally:
        stop.set()
        worker.join()
    wait_until(lambda: not t.queue(), "the queue to be empty", t.explain)
    ends = [
        m.created
        for job in plan(t.run.config, lambda s: False)
        for s in job.missing
        if (m := t.run.manifest(s))
    ]
    return max(ends) - begun, taken[0]


def taking_nodes(setting: Setting, rng: random.Random) -> Callable[[threading.Event], int]:
    def disturb(stop: threading.Event) -> int:
        taken = 0
        while not stop.wait(rng.expovariate(setting.preempt_per_hour * setting.nodes / 3600)):
            preempt(f"n{rng.randrange(setting.nodes)}")
            taken += 1
        return taken

    return disturb


def predict(t: Trial, known: Calibration, setting: Setting) -> Interval:
    cluster = load_cluster(str(t.cluster_file))
    world = World(
        slots=setting.nodes,
        array_limit=setting.array_limit,
        doubt=known.doubt,
        preempt_per_hour=setting.preempt_per_hour,
        requeue_s=REQUEUE_S,
    )
    told = forecast(
        t.run.config, plan(t.run.config, lambda s: False), cluster, t.run.data_root, world=world, known=known
    )
    assert told.seconds is not None, told.sentence()
    return told.seconds


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, default=None)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", type=int, choices=range(len(SETTINGS)), help="just this setting")
    args = p.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    lab = start_lab(folder / "lab", "--cpus", "1", "--grace", str(int(GRACE_S)))
    try:
        first = trial(folder / "first", 2, 8)
        seconds, _ = play(first)
        known = learn(Run.open(first.run.root), cluster_label(load_cluster(str(first.cluster_file))))
        print(
            f"calibrated on a run of {seconds:.0f} s; {account(first.run).total.sentence()}",
            flush=True,
        )
        for number, setting in enumerate(SETTINGS):
            if args.only not in (None, number):
                continue
            t = trial(folder / f"s{number}", setting.shards, setting.array_limit)
            told = predict(t, known, setting)
            away = [f"n{i}" for i in range(setting.nodes, 4)]
            for node in away:
                slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=bench")
            rng = random.Random(f"{args.seed} {number}")
            seconds, taken = play(t, taking_nodes(setting, rng) if setting.preempt_per_hour else None)
            for node in away:
                slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
            error = told.median / seconds - 1
            held = "held" if seconds in told else "did not hold"
            print(f"{setting.name}: predicted {told.median:.0f} s [{told.low:.0f}, {told.high:.0f}], took {seconds:.0f} s ({error:+.0%}, interval {held}), "
                  f"{taken} nodes taken; {ledger(Run.open(t.run.root)).account.total.sentence()}", flush=True)  # fmt: skip
    finally:
        lab("stop")


if __name__ == "__main__":
    main()
