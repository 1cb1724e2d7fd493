"""A run as its stages would leave it, made up: what the tests of the report read. Everything goes through the public ways of publishing."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from evaluation.stored import Grade
from serl.records import Candidate, Completion, Group, Problem, groups_to_parquet, share, to_jsonl
from serl.rewards.vote import vote
from serl.run.attempt import Attempt
from serl.run.events import Events
from serl.run.rundir import Run
from tests.conftest import run_config

SAMPLES = 8
SCORE = {"shards": 2, "benchmarks": ["sums", "choices"], "max_tokens": 64, "samples": 4}


def make_run(folder: Path, tree: dict, **changes: object) -> Run:
    """`tree` is the small configuration of conftest, here with scores and 8 samples; `changes` replace whole sections."""
    tree["respond"] |= {"samples": SAMPLES, "anchors": 10}
    tree |= {"stages": [*tree["stages"], "score"], "score": SCORE, "rounds": 3} | changes
    return Run.create(folder / "runs" / "made-up", run_config(tree), "0123abc")


def publish(
    run: Run, round: int, stage: str, index: int, data: bytes, counts: Mapping[str, float]
) -> None:
    shard = run.shards(round, stage)[index]
    Attempt(run, shard, id="a", inputs={}).publish_bytes(
        ".parquet" if stage == "respond" else ".jsonl", data, 0, counts
    )


def group(
    id: str,
    labels: Iterable[int | None],
    *,
    role: str = "train",
    question: str = "What is 1 + 1?",
    **changes: object,
) -> Group:
    """A group whose class k answers with the number k, the right answer being 0 where there is gold."""
    labels = tuple(labels)
    result = vote(labels)
    gold = "0" if role == "anchor" else None
    fields = {
        "id": id, "role": role, "question": question, "gold": gold, "prompt_ids": (1, 2), "labels": labels, "winner": result.winner, "tie": result.tie,
        "completions": tuple(Completion(token_ids=(3, 4), logprobs=(-0.1, -0.2), text="...", finish_reason="stop") for _ in labels),
        "answers": tuple(None if k is None else str(k) for k in labels), "undecided": 0, "agreement": result.agreement, "margin": result.margin,
        "winner_correct": None if gold is None or result.winner is None else result.winner == 0,
        "rewards": tuple(float(result.winner is not None and k == result.winner) for k in labels),
    }  # fmt: skip
    return Group(**(fields | changes))


def grades(benchmark: str, num: int, skill: float, seed: int) -> list[Grade]:
    """One greedy answer and four samples to each problem; a more able policy solves what a less able one solved, nearly always."""
    rows = []
    for i in range(num):
        ease, luck = random.Random(f"{benchmark} {i}").random(), random.Random(f"{benchmark} {i} {seed}")
        for mode, samples in (("greedy", 1), ("sample", 4)):
            for sample in range(samples):
                right = ease + 0.1 * luck.gauss(0, 1) < skill
                rows.append(
                    Grade(
                        benchmark=benchmark, id=str(i), sample=sample, mode=mode, response="<script>alert(1)</script>", finish_reason="stop", kind="math",
                        gold="1", num_choices=0, extracted="1", verdict="correct" if right else "wrong", label=None if mode == "greedy" else int(not right),
                    )
                )  # fmt: skip
    return rows


def round_groups(round: int, num: int, skill: float, seed: int = 0) -> list[Group]:
    rng = random.Random(f"{round} {seed}")
    made = []
    for i in range(num + 10):
        p = min(0.98, max(0.02, rng.gauss(skill, 0.25)))
        labels = [0 if rng.random() < p else rng.choice((1, 2, 3, None)) for _ in range(SAMPLES)]
        made.append(group(f"g{i}", labels, role="train" if i < num else "anchor"))
    return made


def do_propose(run: Run, round: int) -> None:
    for i in range(2):
        candidates = [Candidate(prompt=j, item=0, text=f"question {j}") for j in range(60)]
        publish(
            run,
            round,
            "propose",
            i,
            to_jsonl(candidates),
            {"items": 70, "accepted": 60, "too_short": 6, "odd_start": 4, "dropped_shots": 3},
        )


def do_curate(run: Run, round: int) -> None:
    kept = [Problem(id=f"p{i}", question=f"question {i}") for i in range(80)]
    counts = {
        "novel": 90,
        "near_duplicate": 25,
        "exact_duplicate": 5,
        "candidates": 120,
        "kept": 80,
        "surplus": 10,
    }
    publish(run, round, "curate", 0, to_jsonl(kept), counts)


def do_respond(run: Run, round: int, groups: list[Group] | None = None) -> None:
    groups = groups if groups is not None else round_groups(round, 78, 0.35 + 0.15 * round)
    for i in range(3):
        mine = share(groups, i, 3)
        counts = {
            "questions": len(mine),
            "completions": SAMPLES * len(mine),
            "truncated": 4,
            "undecided": 1,
            "unparsed": 9,
            "tokens": 40 * SAMPLES * len(mine),
        }
        publish(run, round, "respond", i, groups_to_parquet(mine), counts)


def do_train(run: Run, round: int, num_steps: int = 12, attempt: str = "a-0") -> None:
    events = Events(
        run.root / "events", f"train-r{round:03d}-00000-{attempt}-0", stage="train", round=round, shard=0
    )
    for n in range(1, num_steps + 1):
        kl = 0.002 * n
        numbers = {
            "loss": 0.1 / n - 0.03,
            "lr": 1e-4,
            "grad_norm": 0.5,
            "tokens_per_s": 2000.0 + n,
            "approx_kl": kl,
            "clip_fraction": kl,
            "entropy": 0.6,
        }
        events.add("step", step=n, **numbers)
    events.add("phase", name="steps", seconds=1.5)
    publish(
        run,
        round,
        "train",
        0,
        b"{}\n",
        {"samples": 300, "steps": num_steps, "mismatch_kl": 1e-5, "mismatch_max": 0.01},
    )


def do_score(run: Run, round: int, skill: float | None = None, num: int = 200) -> None:
    skill = 0.4 + 0.15 * round if skill is None else skill
    for i, rows in enumerate((grades("sums", num, skill, round), grades("choices", num, 0.3, round))):
        publish(run, round, "score", i, to_jsonl(rows), {"problems": num})


def do_round(run: Run, round: int) -> None:
    if round:
        for stage in (do_propose, do_curate, do_respond, do_train):
            stage(run, round)
    do_score(run, round)
