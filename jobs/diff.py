"""How two runs differ: `python -m jobs.diff RUN RUN [--round R]`.

Configuration keys with other values, the code they were launched with, the first stage whose results are not
the same bytes, and the scores of their last scored rounds (or of round R) side by side, with the paired test
of evaluation.compare over the problems that both were asked.

JSON: `configuration` (each `key first second`; null where a run has no such key), `code` (`first second
files`, the files that differ), `data_differs_from` (a stage's name, or null), `scores` (each `benchmark first
second difference low high p p_mcnemar n verdict`), `rounds`.
"""

from collections.abc import Sequence
from statistics import fmean

from rich.console import Console

from evaluation.compare import by_problem, common
from evaluation.scores import paired
from evaluation.stored import Grade
from jobs.reporting.render import listing, to_terminal
from jobs.runs.differ import Leaf, changed, code_files, parting
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say, table
from serl.run.rundir import Run, RunError
from serl.stages.exams import exams, round_grades, scored_rounds

MAX_FILES = 12
OF_PAIR = ("difference", "low", "high", "p", "p_mcnemar", "n", "verdict")
SCORES = (
    "benchmark | first | second | change = difference:+.3f | from = low:+.3f | to = high:+.3f | p = p:.2g"
    " | exact p = p_mcnemar:.2g | n | verdict"
)


def body(argv: Sequence[str]) -> int:
    p = parser("diff", "How two runs differ, in configuration, code, data and scores.")
    p.add_argument("first", help="a run's name, or its folder")
    p.add_argument("second", help="another")
    p.add_argument("--round", type=int, help="compare its scores (default: the last scored round of each)")
    args = p.parse_intermixed_args(argv)
    first, second = (find_run(name, data_root(args)) for name in (args.first, args.second))
    keys, files, data_from = changed(first, second), code_files(first, second), parting(first, second)
    rounds = [
        max(scored_rounds(r), default=None) if args.round is None else args.round for r in (first, second)
    ]
    solved = [by_problem(grades(run, r)) if r is not None else {} for run, r in zip((first, second), rounds)]
    scores = [_row(name, *shares) for name, shares in common(*solved).items()]
    if keys:
        names = ("key", first.root.name, second.root.name)
        Console().print(table(names, [(k, _text(a), _text(b)) for k, a, b in keys]))
    else:
        say("the configurations are equal")
    listed = ", ".join(files[:MAX_FILES]) + ", ..." * (len(files) > MAX_FILES)
    say(f"\ncode: {first.code} and {second.code}, {len(files)} files differ{': ' * bool(files)}{listed}")
    say(f"their data differ from {data_from} on" if data_from else "what both have done has the same data")
    say(f"\nscores of their rounds {rounds[0]} and {rounds[1]}, and the second against the first:")
    Console().print(to_terminal(listing(scores, SCORES), "" if scores else "none in common"))
    code = {"first": first.code, "second": second.code, "files": files}
    fields = {"configuration": [{"key": k, "first": a, "second": b} for k, a, b in keys], "code": code}
    return Answer(fields=fields | {"data_differs_from": data_from, "rounds": rounds, "scores": scores})


def grades(run: Run, round: int) -> list[Grade]:
    """The graded responses of a round; refuses one that is not scored."""
    if not exams(run.config, round):
        hint = "leave --round out, or choose one that both have"
        raise RunError(f"{run.root.name} scores no round {round}; {hint}")
    return round_grades(run, round)


def _row(benchmark: str, first: Sequence[float], second: Sequence[float]) -> dict[str, object]:
    """Both means over the common problems, and the paired test."""
    found = paired(first, second)
    means = {"benchmark": benchmark, "first": fmean(first), "second": fmean(second)}
    return means | {name: getattr(found, name) for name in OF_PAIR}


def _text(value: Leaf) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main(body)
