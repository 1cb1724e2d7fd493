"""Scores side by side, and what may honestly be said of a difference: `python -m evaluation.compare RUN [RUN
...]`.

Every scored round of every run is a column; the first is what the others are compared with, problem by
problem.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation import command
from evaluation.scores import Paired, paired
from evaluation.stored import Grade, stored
from evaluation.summary import summarise

ByProblem = Mapping[str, Mapping[str, float]]
"""By benchmark and problem, the share of correct responses."""


def by_problem(grades: Sequence[Grade]) -> dict[str, dict[str, float]]:
    """For each benchmark the share of correct responses to each problem: greedy ones where there are any,
    else samples.
    """
    greedy = {row.benchmark for row in grades if row.mode == "greedy"}
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in grades:
        if (row.mode == "greedy") == (row.benchmark in greedy):
            right[row.benchmark][row.id].append(row.verdict == "correct")
    return {
        name: {id: sum(found) / len(found) for id, found in problems.items()}
        for name, problems in right.items()
    }


def compare(first: Sequence[Grade], second: Sequence[Grade]) -> dict[str, Paired]:
    """The paired comparison of two policies on each benchmark, over the problems that both have answered."""
    return {
        name: paired(ours, theirs)
        for name, (ours, theirs) in common(by_problem(first), by_problem(second)).items()
    }


def common(first: ByProblem, second: ByProblem) -> dict[str, tuple[list[float], list[float]]]:
    """For each benchmark of both, the shares of both policies on the problems of both, in one order; a
    problem that only one was asked says nothing.
    """
    pairs = {}
    for name in (n for n in first if n in second):
        if shared := sorted(first[name].keys() & second[name].keys()):
            pairs[name] = [first[name][id] for id in shared], [second[name][id] for id in shared]
    return pairs


def table(columns: Mapping[str, Sequence[Grade]]) -> list[str]:
    """One line per benchmark and column: the score with its interval, and against the first column the
    difference.
    """
    names = list(columns)
    first = columns[names[0]]
    lines = [
        f"{'benchmark':<18} {'policy':<28} {'solved':>7}  {'95 % interval':<16} {'n':>6}   against {names[0]}"
    ]
    summaries = {name: summarise(rows) for name, rows in columns.items()}
    differences = {name: compare(first, rows) for name, rows in columns.items()}
    for benchmark in sorted({benchmark for summary in summaries.values() for benchmark in summary}):
        for name in names:
            if benchmark not in summaries[name]:
                continue
            metric, score = next(iter(summaries[name][benchmark].metrics.items()))
            line = (
                f"{benchmark:<18} {name:<28.28} {score.value:>7.3f}  [{score.low:.3f}, {score.high:.3f}] "
                f"  {score.n:>6}   {metric}"
            )
            found = differences[name].get(benchmark)
            if found and name != names[0]:
                interval = f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
                line += f", {interval}, p {found.p:.4f}, McNemar {found.p_mcnemar:.4f}: {found.verdict}"
            lines.append(line)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the scored rounds of runs side by side."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.compare",
        description="Compare the stored scores of runs, problem by problem.",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="runs, by folder or name; the first one's first scored round is compared with",
    )
    options = parser.parse_args(arguments)
    columns = {}
    for run in options.runs:
        for round, rows in stored(command.run_folder(run)):
            columns[f"{run.name} {round}"] = rows
    print(*table(columns), sep="\n")
    return 0


if __name__ == "__main__":
    command.run(main)
