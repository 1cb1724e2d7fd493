"""How fast a training in turns learns, and what a turn costs: `slurm/python tests/bench/turns.py [--seeds 0 1 2]`.

The quickstart's base of each seed learns from the vote alone on labelled problems, whose labels only measure. The optimizer
goes on through the rounds, two turns each, and every round is scored, so that there is a curve of held-out greedy accuracy
over trained answers. Finished runs under --data are kept, so that an interrupted benchmark goes on.
"""

import argparse
import statistics
from pathlib import Path

import yaml
from bases import QUICKSTART, base_run, launch

from evaluation.summary import summarise
from serl.run.events import read_events
from serl.run.rundir import Run
from serl.stages.exams import round_grades
from serl.stages.work import policy_dir

CONFIGS = QUICKSTART.parent
GOAL = 0.95
PARTS = ("sample_s", "vote_s", "logprob_s", "step_s", "transfer_s")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("data-turns"))
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--lr", type=float, default=1e-4)
    args = p.parse_args()
    needed = []
    for seed in args.seeds:
        run = _learn(args.data, seed, args.rounds, args.lr)
        curve = _curve(run)
        reached = next((answers for answers, right in curve if right >= GOAL), None)
        needed.append(reached)
        told = "  ".join(f"{answers}: {right:.3f}" for answers, right in curve)
        print(f"seed {seed}: accuracy by trained answers: {told}", flush=True)
        print(f"seed {seed}: {reached or 'not'} trained answers until {GOAL}; {_costs(run)}", flush=True)
    if all(needed):
        print(f"mean of {len(needed)} seeds: {statistics.fmean(needed):.0f} trained answers until {GOAL}")


def _learn(data: Path, seed: int, rounds: int, lr: float) -> Run:
    base = base_run(data, seed)
    path = data / f"seed{seed}.yaml"
    path.write_text(yaml.safe_dump(_tree(policy_dir(base, 0)[0], seed, rounds, lr), sort_keys=False))
    return launch(data, path, f"turns-seed{seed}")


def _tree(policy: Path, seed: int, rounds: int, lr: float) -> dict:
    source = {"kind": "jsonl", "path": f"{seed}-problems.jsonl", "gold": "answer"}
    rollout = {
        "prompts": 16, "samples": 16, "turns": 2, "sampling": {"temperature": 1.0, "max_tokens": 96},
        "problems": {"source": source, "per_round": 32},
    }  # fmt: skip
    train = {
        "objective": {"kind": "reinforce_pp", "kl": 0.0}, "rollout": rollout, "batch_samples": 16,
        "loss_mean": "sequence", "microbatch_tokens": 768, "optimizer": {"lr": lr, "schedule": "constant"},
    }  # fmt: skip
    score = {"shards": 1, "benchmarks": ["arithmetic"], "max_tokens": 96}
    learn = {"rounds": rounds, "carry": "phase", "stages": ["train", "score"], "train": train, "score": score}
    return {
        "extends": str(CONFIGS / "prompts/arithmetic.yaml"), "name": "turns", "seed": seed,
        "base": {"kind": "checkpoint", "path": str(policy.resolve())},
        "engine": {"max_model_len": 512, "kv_cache_gib": 0.25}, "phases": {"learn": learn},
    }  # fmt: skip


def _curve(run: Run) -> list[tuple[int, float]]:
    """(answers trained on so far, greedy accuracy) after each round; the base first."""
    curve, answers = [], 0.0
    for round in range(run.config.rounds + 1):
        training = run.config.training(round)
        answers += run.complete(round, training.name)[0].counts["samples"] if training else 0.0
        curve.append((int(answers), summarise(round_grades(run, round))["arithmetic"].metrics["pass_at_1"].value))
    return curve


def _costs(run: Run) -> str:
    """Where a turn's time goes, without the first of each process, which loads what it uses."""
    turns = [e for e in read_events(run.root / "events") if e["kind"] == "turn" and e["turn"] > 1]
    spent = {name: statistics.median(e[name] for e in turns) for name in PARTS}
    whole = sum(spent.values())
    parts = ", ".join(f"{name.removesuffix('_s')} {seconds:.2f} s" for name, seconds in spent.items())
    beside = spent["transfer_s"] / whole
    return f"a turn: {parts}; transfer and check {beside:.1%} of it"


if __name__ == "__main__":
    main()
