"""What self-play teaches the tiny base model, beside its controls: `slurm/python tests/bench/learning.py [--seeds 0 1 2] [--arms ...]`.

Every arm is a run of configs/quickstart.yaml with a few keys changed, on the same base model of the same seed, through `python -m jobs.launch`.
Finished runs under --data are kept, so that an interrupted benchmark goes on. Prints held-out greedy accuracy before and after, by arm.
"""

import argparse
import statistics
from pathlib import Path

from bases import QUICKSTART, base_run, launch

from evaluation.summary import summarise
from serl.run.rundir import Run
from serl.stages.exams import round_grades
from serl.stages.work import policy_dir

LABELLED = [
    "stages=[train, score]", "propose=null", "curate=null", "respond=null",
    "train.rollout.problems={source: {kind: jsonl, path: problems.jsonl, gold: answer}, per_round: 128}",
]  # fmt: skip
GRPO = "train.objective={kind: grpo, kl: 1.0e-3}"
GIVEN = [*LABELLED, GRPO, "train.agreement=[0.0, 1.0]"]  # problems whose answers nobody reads
TAUGHT = [
    "stages=[teacher, respond, train, score]", "propose=null", "curate=null", GRPO,
    "phases.self_play.teacher={kind: average, share: 0.25}", "train.rollout.vote=array",
    "respond.role=teacher", "respond.anchors=0",
    "respond.problems={source: {kind: jsonl, path: problems.jsonl, gold: answer}, per_round: 128}",
]  # fmt: skip
FROZEN = [
    "train.rollout=null",
    "train.batch_samples=128",
    "train.optimizer.lr=1.0e-4",
    "train.loss_mean=token",
]


def proposed(reward: str) -> list[str]:
    """A policy that writes its own questions in each turn, and earns `reward` for them."""
    proposer = f"{{reward: {reward}, proposals: 4, max_tokens: 96}}"
    return [
        "stages=[train, score]", "propose=null", "curate=null", "respond=null", GRPO,
        "train.agreement=[0.0, 1.0]", "train.rollout.turns=8", f"train.rollout.proposer={proposer}",
    ]  # fmt: skip


ARMS: dict[str, list[str]] = {
    "REINFORCE++, own instructions, vote (SeRL)": [],
    "ground-truth reward, labelled problems": [*LABELLED, "train.rollout.reward.kind=verified"],
    "random reward, own instructions": ["train.rollout.reward.kind=random"],
    "GRPO, own instructions, vote": ["train.objective={kind: grpo, kl: 1.0e-3}"],
    "RLOO, own instructions, vote": ["train.objective={kind: rloo, kl: 1.0e-3}"],
    "no difficulty filter": ["train.agreement=[0.0, 1.0]"],
    "labels from the array's votes": ["train.rollout.vote=array"],
    "one frozen batch of answers a round": FROZEN,
    "PPO with a critic, ground truth, labelled problems": [
        *LABELLED,
        "train.rollout.reward.kind=verified",
        "train.agreement=[0.0, 1.0]",
        "train.objective={kind: ppo, lam: 0.95, value_clip: null, critic: {lr: 3.0e-4}}",
    ],
    "VinePPO, ground truth, labelled problems": [
        *LABELLED,
        "train.rollout.reward.kind=verified",
        "train.agreement=[0.0, 1.0]",
        "train.objective={kind: vine_ppo, rollouts: 4, kl: 1.0e-3}",
    ],
    "TTRL: 32 vote, 16 are trained on": [*GIVEN, "train.rollout.votes=32"],
    "EMPO: the share of the answer's class": [*GIVEN, "train.rollout.reward.kind=class_share"],
    "SCRL: gated labels, 32 vote": [*GIVEN, "train.rollout.votes=32", "train.rollout.reward.kind=scrl"],
    "Co-rewarding II: a moving average votes": TAUGHT,
    "proposer: informative (SQLM)": proposed("{kind: informative}"),
    "proposer: min(p, 1-p) (R-Zero)": proposed("{kind: uncertainty}"),
    "proposer: 1-p (Absolute Zero)": proposed("{kind: difficulty, unsolved: -0.5}"),
    "proposer: 4p(1-p) (learnability)": proposed("{kind: learnability}"),
    "LoRA of rank 8, own instructions, vote": [
        "train.lora={rank: 8, alpha: 16.0}",
        "train.optimizer.lr=1.0e-3",
    ],
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("data-learning"))
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument(
        "--arms",
        type=int,
        nargs="+",
        default=list(range(len(ARMS))),
        help="arms by number, as in the printed table",
    )
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    names = list(ARMS)
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in args.seeds:
        base = base_run(args.data, seed)
        for number in args.arms:
            changes = [f"rounds={args.rounds}", *ARMS[names[number]]]
            run = _run(args.data, f"arm{number}-seed{seed}", base, seed, changes)
            rows.setdefault(names[number], []).append((_greedy(run, 0), _greedy(run, run.config.rounds)))
            print(_table(rows), flush=True)


def _run(data: Path, name: str, base: Run, seed: int, changes: list[str]) -> Run:
    policy, _ = policy_dir(base, 0)
    shared = [
        f"seed={seed}",
        f"base={{kind: checkpoint, path: '{policy}'}}",
        f"seeds={{kind: jsonl, path: {seed}-seeds.jsonl, gold: answer}}",
    ]
    own = [c.replace("path: problems.jsonl", f"path: {seed}-problems.jsonl") for c in changes]
    if "propose=null" in own and not any("rollout.proposer" in c for c in own):
        shared[-1] = "seeds=null"
    return launch(data, QUICKSTART, name, "score.validation=[]", *shared, *own)


def _greedy(run: Run, round: int) -> float:
    return summarise(round_grades(run, round))["arithmetic"].metrics["pass_at_1"].value


def _table(rows: dict[str, list[tuple[float, float]]]) -> str:
    lines = [f"{'arm':<46} {'seeds':>5} {'base':>6} {'final':>6} {'gain':>7}  gain by seed"]
    for name, pairs in rows.items():
        base, final = (statistics.mean(column) for column in zip(*pairs))
        gains = " ".join(f"{b - a:+.3f}" for a, b in pairs)
        lines.append(f"{name:<46} {len(pairs):>5} {base:>6.3f} {final:>6.3f} {final - base:>+7.3f}  {gains}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
