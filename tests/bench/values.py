"""Who knows better what a state of an answer is worth, a critic or a few rollouts: `slurm/python tests/bench/values.py RUN`.

Of a run of PPO (configs/openrl/tiny_ppo.yaml), its last policy answers questions that it was not trained on; the state before
each step of the answers is valued by the critic that was trained beside it, by 1, 4 and 9 rollouts, and by 256, the truth. Prints
the mean absolute error of each over all states, and over those whose truth is neither 0 nor 1, with the truth's own error.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from evaluation.judging import Judge
from serl.config.engine import Engine
from serl.config.objectives import Sentences
from serl.config.training import Optimizer, Training
from serl.engines.generator import Generator
from serl.engines.passes import frozen_scores
from serl.engines.ranks import Ranks
from serl.learning.batch import Sample
from serl.records import Group
from serl.rewards.kinds import Earnings
from serl.rewards.spec import Verified
from serl.run.rundir import Run
from serl.stages.answering import Asking, answer
from serl.stages.branching import Tree, rollouts, tree_of, values
from serl.stages.sources import JsonlProblems
from serl.stages.work import policy_dir
from serl.text.problems import load_problems
from serl.text.steps import Pieces

TRUTH = 256


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", type=Path)
    p.add_argument("questions", type=Path, help="JSON lines with question and answer")
    p.add_argument("--count", type=int, default=48)
    p.add_argument("--samples", type=int, default=4)
    args = p.parse_args()
    run = Run.open(args.run)
    last, section = run.config.rounds, run.config.stage(run.config.rounds, "train").section
    source = JsonlProblems(path=str(args.questions.resolve()), gold="answer")
    problems = load_problems(source, data_root=args.run, corpus=args.run)[-args.count :]
    engine = Generator(policy_dir(run, last)[0], Engine(max_model_len=512, kv_cache_gib=0.25), device="cpu")
    asking = Asking(
        seed=1, round=last, stage="values", prompts=run.config.prompts, sampling=section.rollout.sampling,
        samples=args.samples, earnings=Earnings(Verified()),
    )  # fmt: skip
    pieces = Pieces(engine.tokenizer)
    with Judge(run.config.answers) as reader:
        groups = answer(engine, reader, [("test", q) for q in problems], asking)
        tree = tree_of(groups, pieces, Sentences())

        def valued(count: int, seed: int) -> list[float]:
            how = replace(asking, samples=count, seed=seed)
            return values(tree.states, rollouts(engine, tree.states, how), pieces, reader, how)

        truth = valued(TRUTH, seed=2)
        found = {f"{k} rollouts": valued(k, seed=3) for k in (1, 4, 9)}
    found["critic"] = criticised(policy_dir(run, last, section.objective.critic.role)[0], groups, tree)
    found["their mean"] = [fmean(truth)] * len(truth)
    report(truth, found)


def criticised(folder: Path, groups: Sequence[Group], tree: Tree) -> list[float]:
    """The critic's value of each state, read in an answer that goes through it."""
    alone = Ranks(rank=0, size=1, device=torch.device("cpu"))
    ask = frozen_scores(folder, Training(optimizer=Optimizer(lr=1.0), zero=0), ranks=alone)
    rows = [(g.prompt_ids, c.token_ids) for g in groups for c in g.completions]
    samples = [Sample(token_L=torch.tensor(p + a), num_prompt=len(p), column={}) for p, a in rows]
    value: dict[int, float] = {}
    for cuts, places, value_T in zip(tree.cuts, tree.places, ask(samples), strict=True):
        value |= {place: value_T[cut].item() for cut, place in zip(cuts, places)}
    return [value[i] for i in range(len(tree.states))]


def report(truth: Sequence[float], found: dict[str, list[float]]) -> None:
    undecided = [i for i, t in enumerate(truth) if 0.02 < t < 0.98]
    noise = fmean((t * (1 - t) / TRUTH) ** 0.5 * 0.8 for t in truth)
    print(f"{len(truth)} states, {len(undecided)} of them undecided; the truth itself is off by {noise:.3f}")
    print(f"{'valued by':<12} {'mean |error|':>12} {'undecided':>10} {'mean value':>11}")
    for name, value in found.items():
        errors = [abs(v - t) for v, t in zip(value, truth, strict=True)]
        some = fmean(errors[i] for i in undecided)
        print(f"{name:<12} {fmean(errors):>12.3f} {some:>10.3f} {fmean(value):>11.3f}")


if __name__ == "__main__":
    main()
