"""Methods that learn offline, each beside its controls: `slurm/python tests/bench/methods.py [--seeds 0 1 2]`.

On the quickstart's base of each seed, from one set of answers to labelled problems: a reward model, by held-out pair
accuracy and the best of 16 answers by it (against the vote's answer, the first one and a random one); free process
rewards, by the best of 16 answers by their least step; DPO, DPO-positive
and RestEM, by greedy accuracy on the held-out benchmark against the base, with McNemar's test. Then SER, from
configs/ser/tiny.yaml: held-out pair accuracy of the seed model, after each loop, of the random control, and of a model
trained on all labels. Finished runs under --data are kept, so that an interrupted benchmark goes on.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from evaluation.compare import compare
from evaluation.scores import wilson
from evaluation.summary import summarise
from serl.run.events import read_file
from serl.run.rundir import Run
from serl.stages.exams import round_grades
from serl.stages.read import left
from serl.stages.work import corpus_dir, policy_dir

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
POLICIES = ("dpo", "dpo_positive", "restem")
SELECTED = {"kind": "select", "questions": [0.0, 0.75]}
LEARN = {"batch_samples": 32, "microbatch_tokens": 1536, "checkpoint_every": 100}
ALL_LABELS = ["phases.loop=null", "phases.policy=null", "phases.seed.labelled.questions=[0.0, 0.8]"]
SER = {
    "SER": [],
    "SER, random filter of the same size": ["loop.gate.choose.random=true", "phases.policy=null"],
    "all labels": ALL_LABELS,
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("data-methods"))
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--only", choices=("offline", "ser"))
    args = p.parse_args()
    for seed in args.seeds:
        base = _base(args.data, seed)
        if args.only != "ser":
            path = args.data / f"methods-seed{seed}.yaml"
            path.write_text(yaml.safe_dump(_tree(policy_dir(base, 0)[0], seed), sort_keys=False))
            run = _launch(args.data, path, f"methods-seed{seed}")
            for line in (*_reward_lines(run), *_policy_lines(run)):
                print(f"seed {seed} | {line}", flush=True)
        for number, (name, changes) in enumerate(SER.items() if args.only != "offline" else ()):
            own = [f"seed={seed}", f"base={{kind: checkpoint, path: '{policy_dir(base, 0)[0].resolve()}'}}"]
            source = f"{{kind: jsonl, path: {seed}-problems.jsonl, gold: answer}}"
            own.append(f"phases.seed.respond.problems.source={source}")
            if "phases.policy=null" not in changes:
                own.append(f"phases.policy.train.rollout.problems.source={source}")
            run = _launch(args.data, CONFIGS / "ser/tiny.yaml", f"ser{number}-seed{seed}", *own, *changes)
            print(f"seed {seed} | {name}: {_loops(run)}", flush=True)


def _base(data: Path, seed: int) -> Run:
    """The base model of a seed, made once; its corpus gives labelled problems and a benchmark."""
    run = _launch(data, CONFIGS / "quickstart.yaml", f"base-seed{seed}", f"seed={seed}", "rounds=0")
    for folder in ("seeds", "benchmarks"):
        (data / folder).mkdir(exist_ok=True)
    shutil.copy(corpus_dir(run) / "problems.jsonl", data / "seeds" / f"{seed}-problems.jsonl")
    shutil.copy(corpus_dir(run) / "arithmetic.jsonl", data / "benchmarks" / "arithmetic.jsonl")
    return run


def _tree(policy: Path, seed: int) -> dict:
    source = {"kind": "jsonl", "path": f"{seed}-problems.jsonl", "gold": "answer"}
    respond = {
        "shards": 1, "samples": 16, "sampling": {"temperature": 1.0, "max_tokens": 96},
        "problems": {"source": source, "per_round": 600},
    }  # fmt: skip
    reward = {
        "kind": "train", "role": "reward", "objective": {"kind": "bradley_terry", "centre": 0.01}, "epochs": 2,
        "optimizer": {"lr": 3e-4}, **LEARN,
    }  # fmt: skip
    implied = {
        "kind": "train", "role": "verifier", "init": "base", "data": "pairs", "optimizer": {"lr": 1e-4},
        "objective": {"kind": "implicit_reward", "form": "nca"}, **LEARN,
    }  # fmt: skip
    held = {"kind": "judge", "data": "respond", "questions": [0.75, 1.0], "shards": 1, "microbatch_tokens": 1536}
    first = {
        "stages": ["respond", "pairs", "right", "reward", "held", "implied", "process", "train", "score"],
        "respond": respond,
        "pairs": SELECTED | {"choose": {"kind": "cross", "by": "gold", "most": 4}},
        "right": SELECTED | {"choose": {"kind": "right", "by": "gold", "most": 4}},
        "reward": reward,
        "held": held,
        "implied": implied,
        "process": held | {"role": "verifier", "reads": {"kind": "implicit"}},
    }
    dpo, positive = {"kind": "dpo"}, {"kind": "dpo", "positive": 5.0}
    phases = {
        "dpo": _learning(dpo, "pairs", 3e-5) | first,
        "dpo_positive": _learning(positive, "pairs", 3e-5),
        "restem": _learning({"kind": "imitation"}, "right", 1e-4),
    }
    return {
        "extends": str(CONFIGS / "prompts/arithmetic.yaml"), "name": "methods", "seed": seed,
        "base": {"kind": "checkpoint", "path": str(policy.resolve())},
        "engine": {"max_model_len": 512, "kv_cache_gib": 0.25}, "phases": phases,
    }  # fmt: skip


def _learning(objective: dict, data: str, lr: float) -> dict:
    """A round of a policy from the base, on what the first phase has chosen."""
    train = {"objective": objective, "init": "base", "data": data, "optimizer": {"lr": lr}, **LEARN}
    score = {"shards": 1, "benchmarks": ["arithmetic"], "max_tokens": 96}
    return {"stages": ["train", "score"], "train": train, "score": score}


def _launch(data: Path, config: Path, name: str, *overrides: str) -> Run:
    root = (data / "runs" / name).resolve()
    verb = ["resume", name] if (root / "run.json").exists() else ["launch", str(config), f"name={name}", *overrides]
    command = [sys.executable, "-m", f"jobs.{verb[0]}", "--data", str(data), *verb[1:]]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Run.open(root)


def _reward_lines(run: Run) -> list[str]:
    (held,) = left(run, run.config.stage(1, "held"))
    counts = held.counts
    asked, apart = int(counts["questions"]), int(counts["told_apart"])
    told = [("held-out pairs in order", counts["pairs_right"], apart)]
    names = {
        "best of 16 by the reward model": "best_of_16", "the vote's answer": "vote_right",
        "a random answer": "random_right", "any right among 16": "some_right",
    }  # fmt: skip
    told += [(name, counts[key], asked) for name, key in names.items()]
    (process,) = left(run, run.config.stage(1, "process"))
    told.append(("best of 16 by the least process reward", process.counts["best_of_16"], asked))
    return [f"reward model: {name}: {_share(n, of)}" for name, n, of in told]


def _share(n: float, of: int) -> str:
    low, high = wilson(n / of, of)
    return f"{n / of:.3f} [{low:.3f}, {high:.3f}] of {of} questions"


def _policy_lines(run: Run) -> list[str]:
    base = round_grades(run, 0)
    lines = [f"base: greedy {_greedy(base):.3f}"]
    for round, name in enumerate(POLICIES, 1):
        grades = round_grades(run, round)
        found = compare(base, grades)["arithmetic"]
        better = f", better answer's log-ratio at the end {_kept(run, round):+.2f}" if round < 3 else ""
        lines.append(f"{name}: greedy {_greedy(grades):.3f}, p = {found.p_mcnemar:.2g} against the base{better}")
    return lines


def _kept(run: Run, round: int) -> float:
    """log p / p_ref of the better answers of the last step's pairs."""
    files = (run.root / "events").glob(f"train-r{round:03d}-*.jsonl")
    steps = [e for path in files for e in read_file(path) if e["kind"] == "step"]
    beta = run.config.stage(round, "train").section.objective.beta
    return max(steps, key=lambda e: e["step"])["better_reward"] / beta


def _greedy(grades) -> float:
    return summarise(grades)["arithmetic"].metrics["pass_at_1"].value


def _loops(run: Run) -> str:
    """Held-out pair accuracy after the seed and every loop, with what the gate took, and the policy's accuracy."""
    told = []
    for stage in run.config.stages:
        for m in left(run, stage) if stage.name in ("exam", "gate") else ():
            c = m.counts
            if stage.name == "exam":
                told.append(f"{c['agreed'] / c['pairs']:.3f}")
            else:
                right = f", {c['new_right'] / c['new_audited']:.3f} of them right" if c.get("new_audited") else ""
                told.append(f"({'settled' if c.get('settled') else 'took'} {c['new']:.0f} of {c['pool']:.0f}{right})")
    rounds = [r for r in range(run.config.rounds + 1) if run.config.giving(r, "grades")]
    scores = [f"{_greedy(round_grades(run, r)):.3f}" for r in rounds]
    return " ".join(told) + (f"; policy {' to '.join(scores)}" if scores else "")


if __name__ == "__main__":
    main()
