"""What grading costs: the official way (math-verify on gold and whole response, in series, both ways) against `evaluation.grade`.

`SERL_TEST_DATA=FOLDER python tests/bench/grading.py` makes responses from real gold answers (right ones in another form, wrong ones from
neighbouring problems, some without an answer; 16 samples of each problem), grades them both ways in one run, and prints times, their ratio, and where verdicts differ.
"""

import logging
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from math_verify import ExprExtractionConfig, LatexExtractionConfig
from math_verify.metric import math_metric

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.benchmark import Problem, load_benchmark, load_problems
from evaluation.grade import grade
from evaluation.stored import Response
from evaluation.verifier import Verifier

NAMES = ("math_500", "gsm8k", "college_math", "olympiadbench", "minerva_math")
NUM_PROBLEMS = 20
NUM_SAMPLES = 16
TARGET = 10.0
WORKING = (
    "We first note that $a^2 + b^2 = c^2$ and that $x = {n}$ cannot hold, since $\\frac{{{n}}}{{7}} > 0$. Multiplying both sides by "
    "${n}$ gives $f(x) = {n}x + 1$, so that after simplifying we have \\[ y = \\frac{{x + {n}}}{{2}}. \\] Substituting back, "
)


def response(problem: Problem, others: Sequence[Problem], draw: random.Random) -> str:
    """Some lines of working, and a right answer, one of a few wrong ones, or none."""
    gold = problem.gold
    right = [
        f"the answer is $\\boxed{{{gold}}}$.",
        f"we get \\boxed{{ {gold} }}.",
        f"Final answer: $\\boxed{{{gold.replace('frac', 'dfrac')}}}$.",
    ]
    wrong = [f"the answer is $\\boxed{{{other.gold}}}$." for other in others] + ["and so the claim follows."]
    return "".join(WORKING.format(n=draw.randrange(2, 99)) for _ in range(4)) + draw.choice(right + wrong)


def official(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """math-verify's metric on (gold, response), and on the two reversed where that fails; an exception counts as wrong."""
    metric = math_metric(
        gold_extraction_target=(LatexExtractionConfig(),),
        pred_extraction_target=(ExprExtractionConfig(), LatexExtractionConfig()),
    )
    backwards = math_metric(
        gold_extraction_target=(ExprExtractionConfig(), LatexExtractionConfig()),
        pred_extraction_target=(LatexExtractionConfig(),),
    )
    return [_true(metric, gold, text) or _true(backwards, text, gold) for gold, text in pairs]


def _true(metric: Callable, gold: str, prediction: str) -> bool:
    try:
        return metric([gold], [prediction])[0] == 1.0
    except Exception:  # noqa: BLE001  (as the official script does)
        return False


def main() -> int:
    folder = (
        Path(os.environ.get("SERL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
        / "benchmarks"
    )
    if not folder.is_dir():
        print(f"no real benchmark files in {folder}; SERL_TEST_DATA names the folder above them")
        return 0
    draw = random.Random(0)
    print(
        f"{'benchmark':<16} {'responses':>9} {'official s':>11} {'ours s':>8} {'ratio':>7} {'same verdict':>13} {'official only':>14} {'ours only':>10}"
    )
    total_official = total_ours = official_cpu = own_cpu = 0.0
    logging.disable(logging.CRITICAL)  # math-verify warns of each answer that it cannot read
    with Verifier(workers=2, limit_s=5.0) as verifier:
        verifier.judge([(f"x+{i}", f"{i}+x") for i in range(128)])  # workers are up before the clock starts
        for name in NAMES:
            benchmark = load_benchmark(name)
            usable = [p for p in load_problems(benchmark, [folder]) if p.id not in benchmark.text]
            problems = draw.sample(usable, min(NUM_PROBLEMS, len(usable)))
            asked = [
                (p, (problems[i - 1], problems[i - 2]))
                for i, p in enumerate(problems)
                for _ in range(NUM_SAMPLES)
            ]
            texts = [response(p, others, draw) for p, others in asked]
            start, before = time.perf_counter(), time.process_time()
            theirs = official(
                [(f"\\boxed{{{p.gold}}}", text) for (p, _), text in zip(asked, texts, strict=True)]
            )
            middle, between = time.perf_counter(), time.process_time()
            rows = [
                Response(
                    benchmark=p.benchmark,
                    id=p.id,
                    sample=i,
                    mode="greedy",
                    response=text,
                    finish_reason="stop",
                )
                for i, ((p, _), text) in enumerate(zip(asked, texts, strict=True))
            ]
            ours = [row.verdict == "correct" for row in grade(problems, rows, verifier)]
            official_cpu, own_cpu = official_cpu + between - before, own_cpu + time.process_time() - between
            slow, fast = middle - start, time.perf_counter() - middle
            total_official, total_ours = total_official + slow, total_ours + fast
            same = sum(a == b for a, b in zip(theirs, ours, strict=True))
            only = [
                sum(a and not b for a, b in zip(theirs, ours, strict=True)),
                sum(b and not a for a, b in zip(theirs, ours, strict=True)),
            ]
            print(
                f"{name:<16} {len(rows):>9} {slow:>11.2f} {fast:>8.2f} {slow / fast:>6.1f}x {same:>6} / {len(rows):<4} {only[0]:>14} {only[1]:>10}",
                flush=True,
            )
    ratio = total_official / total_ours
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{'all':<16} {'':>9} {total_official:>11.2f} {total_ours:>8.2f} {ratio:>6.1f}x   target {TARGET:.0f}x"
    )
    print(
        f"processor time: official {official_cpu:.1f} s, ours {own_cpu + workers.ru_utime + workers.ru_stime:.1f} s over both cores, start of workers included"
    )
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
