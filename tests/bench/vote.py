"""What a vote costs: sixteen answers compared in pairs as whole texts (the official way), and parsed once into classes (ours).

`python tests/bench/vote.py` prints both for the same groups, side by side in one run, and then the cost of one hostile answer.
The official way is rebuilt from its description: math-verify's metric on question plus response, for each pair in both directions.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from math_verify import ExprExtractionConfig, LatexExtractionConfig
from math_verify.metric import math_metric

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.answers import extract
from evaluation.verifier import Verifier

NUM_SAMPLES = 16
TARGET = 30.0
HOSTILE = ("1000000000!", "9^{9^{9^9}}", "(" * 60 + "1" + ")" * 60, "\\lfloor 10^{10^{9}} \\rfloor")


def same_integer(draw: random.Random) -> list[str]:
    number = draw.randrange(10, 9000)
    return [f"\\boxed{{{number}}}"] * NUM_SAMPLES


def integers(draw: random.Random) -> list[str]:
    classes = draw.sample(range(10, 9000), 4)
    return [f"\\boxed{{{draw.choices(classes, [8, 4, 2, 1])[0]}}}" for _ in range(NUM_SAMPLES)]


def fractions(draw: random.Random) -> list[str]:
    under = draw.randrange(3, 60)
    forms = [
        f"\\frac{{1}}{{{under}}}",
        f"1/{under}",
        f"\\dfrac{{2}}{{{2 * under}}}",
        f"\\frac{{1}}{{{under + 1}}}",
        f"{under}",
        "0.75",
    ]
    return [f"\\boxed{{{draw.choice(forms)}}}" for _ in range(NUM_SAMPLES)]


def symbols(draw: random.Random) -> list[str]:
    a, b = draw.randrange(2, 40), draw.randrange(2, 40)
    forms = [
        f"(x+{a})(x+{b})",
        f"x^2+{a + b}x+{a * b}",
        f"x^2+{a}x+{b}",
        f"\\frac{{\\sqrt{{{a}}}}}{{{b}}}",
        f"x = {a}",
    ]
    return [f"\\boxed{{{draw.choices(forms, [6, 4, 3, 2, 1])[0]}}}" for _ in range(NUM_SAMPLES)]


def with_prose(draw: random.Random) -> list[str]:
    answers = [f"\\boxed{{{draw.choice([12, 15, 18]) + draw.randrange(2)}}}" for _ in range(NUM_SAMPLES - 5)]
    return [
        *answers,
        "\\boxed{\\frac{3}{",
        "so we are done",
        "I do not know how to go on from here",
        "The answer is 12.",
        "\\boxed{no solution}",
    ]


KINDS: dict[str, Callable[[random.Random], list[str]]] = {
    "all the same integer": same_integer,
    "four classes of integers": integers,
    "fractions and decimals": fractions,
    "symbolic LaTeX": symbols,
    "with prose and no answer": with_prose,
}


def told(answers: Sequence[str], draw: random.Random) -> tuple[str, list[str]]:
    """A question and the responses that end in the given answers."""
    question = f"A train travels at {draw.randrange(20, 90)} mph for {draw.randrange(2, 9)} hours. How far does it go?\n"
    return question, [
        f"First, $s = v t$ with $v > 0$. In step {i} we multiply and find {answer}."
        for i, answer in enumerate(answers)
    ]


def official(texts: Sequence[str]) -> list[float]:
    """Rewards by the official rule: the row with most equals wins, each pair compared in up to two directions."""
    targets = (ExprExtractionConfig(), LatexExtractionConfig())
    metric = math_metric(gold_extraction_target=targets, pred_extraction_target=targets)
    equal = [[i == j for j in range(len(texts))] for i in range(len(texts))]
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            equal[i][j] = equal[j][i] = _judged(metric, texts[i], texts[j]) or _judged(
                metric, texts[j], texts[i]
            )
    winner = max(equal, key=sum)
    return [float(agrees) for agrees in winner]


def _judged(metric: Callable, gold: str, prediction: str) -> bool:
    try:
        return metric([gold], [prediction])[0] == 1.0
    except ValueError:  # nothing to read in the gold: the official way takes that for "different"
        return False


def ours(responses: Sequence[str], verifier: Verifier) -> int:
    """The number of classes."""
    return len(verifier.classes([extract(response) for response in responses]).representatives)


def timed(call: Callable, *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def main() -> int:
    draw = random.Random(0)
    total = {"official": 0.0, "ours": 0.0}
    limit_s = 2.0
    with Verifier(workers=1, limit_s=limit_s) as verifier:
        ours(["\\boxed{x^2+1}", "\\boxed{\\frac{x}{2}}"], verifier)  # both ways start warm
        official(["$x^2+1$", "$\\frac{x}{2}$"])
        print(
            f"{'16 answers':<28}{'official':>12}{'ours':>12}{'ratio':>8}   (median milliseconds of 4 groups)"
        )
        for kind, make in KINDS.items():
            times: dict[str, list[float]] = {"official": [], "ours": []}
            for _ in range(4):
                question, responses = told(make(draw), draw)
                times["official"].append(timed(official, [question + response for response in responses]))
                times["ours"].append(timed(ours, responses, verifier))
            slow, fast = statistics.median(times["official"]), statistics.median(times["ours"])
            total["official"] += sum(times["official"])
            total["ours"] += sum(times["ours"])
            print(f"{kind:<28}{slow * 1e3:>12.1f}{fast * 1e3:>12.2f}{slow / fast:>7.0f}x")
        ratio = total["official"] / total["ours"]
        print(
            f"{'all groups together':<28}{total['official'] * 1e3:>12.1f}{total['ours'] * 1e3:>12.2f}{ratio:>7.0f}x   target {TARGET:.0f}x"
        )
        slowest = 0.0
        for answer in HOSTILE:
            responses = [f"\\boxed{{{answer}}}"] * 3 + [f"\\boxed{{x+{i % 3}}}" for i in range(13)]
            seconds = timed(ours, responses, verifier)
            slowest = max(slowest, seconds)
            print(
                f"one hostile answer {answer[:24]:<26} ours {seconds:>6.2f} s   limit {limit_s:.0f} s (and a restart of the worker)"
            )
    return 0 if ratio >= TARGET and slowest < limit_s + 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
