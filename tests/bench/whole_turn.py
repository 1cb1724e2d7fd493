"""A whole turn against one of TRL's GRPOTrainer: `slurm/python tests/bench/whole_turn.py --trl PYTHON`.

Both train the quickstart's base model on the same 16 prompts a turn, 16 answers each of at most 96 tokens,
rewarded by the majority, 16 optimizer steps of 16 answers: sampling, vote, log-probabilities, steps and new
weights for the sampler are all in it, and whatever lies between two turns. One core each, one after the other,
in seconds of the clock: the machine should have nothing else to do. TRL answers with transformers' generation,
for its colocated vLLM wants a GPU; ours with vLLM, and it compares answers as mathematics. PYTHON: see
`trainers.py`.
"""

import argparse
import itertools
import json
import os
import statistics
from pathlib import Path

import yaml
from bases import QUICKSTART, base_run, launch
from race.material import WARM
from race.sides import side

from serl.engines.model import load_tokenizer
from serl.records import Group
from serl.run.events import read_events
from serl.run.rundir import Run
from serl.stages import read
from serl.stages.work import policy_dir

PROMPTS, SAMPLES, BATCH, MAX_TOKENS, LR = 16, 16, 16, 96, 3e-5


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trl", type=Path, required=True, metavar="PYTHON")
    p.add_argument("--data", type=Path, default=Path("data-turns"))
    p.add_argument("--turns", type=int, default=8)
    args = p.parse_args()
    policy, _ = policy_dir(base_run(args.data, 0), 0)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run = launch(args.data, _written(args.data, policy, args.turns), "whole-turn")
    groups = read.round_groups(run, 1, completions=True)
    theirs = side(args.trl, "their_turns.py", *_options(args, policy, groups))
    mine, other = statistics.median(_turns(run)), statistics.median(theirs["seconds"])
    sampled = sum(len(c.token_ids) for g in groups for c in g.completions) / args.turns
    told = f"{mine:.2f} s of ours, {other:.2f} s of {theirs['version']}"
    print(f"a whole turn: {told}: {other / mine:.2f} times")
    print(f"tokens sampled in a turn: {sampled:,.0f} and {statistics.fmean(theirs['tokens']):,.0f}")


def _written(data: Path, policy: Path, turns: int) -> Path:
    """The run file of our side: a training alone, on one rank, no group left out."""
    source = {"kind": "jsonl", "path": "0-problems.jsonl", "gold": "answer"}
    rollout = {
        "prompts": PROMPTS,
        "samples": SAMPLES,
        "sampling": {"temperature": 1.0, "max_tokens": MAX_TOKENS},
        "problems": {"source": source, "per_round": PROMPTS * turns},
    }
    train = {
        "objective": {"kind": "grpo", "kl": 0.0},
        "rollout": rollout,
        "agreement": [0.0, 1.0],
        "batch_samples": BATCH,
        "microbatch_tokens": 2048,
        "optimizer": {"lr": LR, "schedule": "constant"},
    }
    tree = {
        "extends": str(QUICKSTART.parent / "prompts/arithmetic.yaml"),
        "name": "whole-turn",
        "seed": 0,
        "base": {"kind": "checkpoint", "path": str(policy.resolve())},
        "engine": {"max_model_len": 512, "kv_cache_gib": 0.25},
        "phases": {"learn": {"rounds": 1, "stages": ["train"], "train": train}},
    }
    path = data / "whole-turn.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def _turns(run: Run) -> list[float]:
    """Seconds from one turn's end to the next one's."""
    ends = [e["time"] for e in read_events(run.root / "events") if e["kind"] == "turn"]
    return [after - before for before, after in itertools.pairwise(ends)][WARM - 1 :]


def _options(args: argparse.Namespace, policy: Path, groups: list[Group]) -> list[str]:
    """Of the other side: the same prompts, as text."""
    tokenizer = load_tokenizer(policy)
    prompts = args.data.resolve() / "whole-turn-prompts.json"
    prompts.write_text(json.dumps([tokenizer.decode(g.prompt_ids) for g in groups]))
    numbers = {"turns": args.turns, "samples": SAMPLES, "asked": PROMPTS, "batch": BATCH, "lr": LR}
    numbers["max-tokens"] = MAX_TOKENS
    paths = ["--model", str(policy.resolve()), "--prompts", str(prompts)]
    return paths + [word for name, value in numbers.items() for word in (f"--{name}", str(value))]


if __name__ == "__main__":
    main()
