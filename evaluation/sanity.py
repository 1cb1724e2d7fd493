"""Whether every gold answer is understood, and graded correct when a response boxes it: `python -m
evaluation.sanity --data FOLDER`.

A gold is understood if it is read as a value of the kind that it declares itself to be by the look of it
(`golds.declared`). Prose cannot be; such rows are listed in the benchmark's description and counted apart, as
are rows without a usable gold.
"""

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import command
from evaluation.benchmark import Benchmark, Problem, load_benchmark, load_problems
from evaluation.golds import ALLOWED, Declared, declared
from evaluation.grade import grade
from evaluation.stored import Response
from evaluation.verifier import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Misread:
    """A gold that is not understood, or not graded correct."""

    id: str
    gold: str
    declared: str
    found: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanity:
    """The golds of a benchmark: `num_rows` = `num_understood` + `num_text` + `num_unusable` + misread
    ones.
    """

    name: str
    num_rows: int
    num_correct: int
    num_understood: int
    num_text: int
    num_unusable: int
    kinds: Mapping[str, int]
    misread: tuple[Misread, ...]

    @property
    def sound(self) -> bool:
        return not self.misread


def check(benchmark: Benchmark, problems: Sequence[Problem], verifier: Verifier) -> Sanity:
    """Box every gold, grade it, and compare what it is read as with what it looks like."""
    responses = [_boxed(problem) for problem in problems]
    verdicts = [row.verdict for row in grade(problems, responses, verifier)]
    math = [problem for problem in problems if problem.kind == "math"]
    found = dict(
        zip((problem.id for problem in math), verifier.kinds([problem.gold for problem in math]), strict=True)
    )
    kinds: Counter[str] = Counter()
    misread, num_text = [], 0
    for problem, verdict in zip(problems, verdicts, strict=True):
        looks: Declared | str = declared(problem.gold) if problem.kind == "math" else problem.kind
        kind = found.get(problem.id, problem.kind)
        is_text = problem.id in benchmark.text
        kinds["prose" if is_text else looks] += 1
        num_text += is_text
        understood = is_text or problem.kind != "math" or kind in ALLOWED[looks]
        if not understood or verdict != "correct":
            misread.append(
                Misread(id=problem.id, gold=problem.gold, declared=looks, found=kind, verdict=verdict)
            )
    return Sanity(
        name=benchmark.name,
        num_rows=len(problems) + len(benchmark.unusable),
        num_correct=verdicts.count("correct"),
        num_understood=len(problems) - num_text - len(misread),
        num_text=num_text,
        num_unusable=len(benchmark.unusable),
        kinds=kinds,
        misread=tuple(misread),
    )


def table(checks: Sequence[Sanity]) -> list[str]:
    """The gold-sanity table, one line per benchmark."""
    heading = (
        f"{'benchmark':<18} {'rows':>6} {'correct':>8} {'understood':>11} {'prose':>6} {'unusable':>9} "
        f"{'misread':>8}  share"
    )
    lines = [heading]
    for c in checks:
        share = (c.num_rows - c.num_unusable - len(c.misread)) / max(1, c.num_rows - c.num_unusable)
        counts = (
            f"{c.num_rows:>6} {c.num_correct:>8} {c.num_understood:>11} {c.num_text:>6} "
            f"{c.num_unusable:>9} {len(c.misread):>8}"
        )
        lines.append(f"{c.name:<18} {counts}  {share:.2%}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and every gold that is misread; 1 if there is one."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.sanity", description="Check that every gold answer is understood."
    )
    parser.add_argument(
        "benchmarks", nargs="*", help="which benchmarks; all those whose files are there if none is named"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="the data root, or its folder of benchmark files"
    )
    parser.add_argument("--workers", type=command.at_least_one, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=command.seconds, default=10.0, help="seconds per answer")
    parser.add_argument(
        "--show", type=int, default=20, help="how many misread golds of each benchmark to print"
    )
    parser.add_argument(
        "--kinds", action="store_true", help="print also how many golds there are of each kind"
    )
    options = parser.parse_args(arguments)
    folder, names = command.there(options.data, options.benchmarks or ())
    checks = []
    with Verifier(options.workers, options.limit) as verifier:
        for name in names:
            benchmark = load_benchmark(name)
            checks.append(check(benchmark, load_problems(benchmark, [folder]), verifier))
            print(*table(checks[-1:])[len(checks) > 1 :], sep="\n", flush=True)
            if options.kinds:
                print("   ", ", ".join(f"{kind} {count}" for kind, count in checks[-1].kinds.most_common()))
            for row in checks[-1].misread[: options.show]:
                print(
                    f"    {row.id}: {row.gold!r} looks like {row.declared}, is read as {row.found}, graded "
                    f"{row.verdict}"
                )
    return 0 if all(result.sound for result in checks) else 1


def _one(problem: Problem) -> str:
    """The gold answer; of a domain's several, which stand on lines, the first."""
    return problem.gold.partition("\n")[0] if problem.domain else problem.gold


def _boxed(problem: Problem) -> Response:
    text = (
        f"The answer is ({problem.gold})."
        if problem.kind == "choice"
        else f"So we find \\boxed{{{_one(problem)}}}."
    )
    return Response(
        benchmark=problem.benchmark,
        id=problem.id,
        sample=0,
        mode="greedy",
        response=text,
        finish_reason="stop",
    )


if __name__ == "__main__":
    command.run(main)
