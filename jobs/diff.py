"""How two runs differ: `python -m jobs.diff RUN RUN [--round R]`.

Configuration keys with other values, the code they were launched with, the first stage whose results are not
the same bytes, and the scores of their last scored rounds (or of round R) side by side, with the paired test
of evaluation.compare over the problems that both were asked.

JSON: `configuration` (each `key first second`; null where a run has no such key), `code` (`first second
files`, the files that differ), `data_differs_from` (a stage's name, or null), `scores` (each `benchmark first
second difference low high p p_mcnemar n verdict`), `rounds`.
"""

from collections.abc import Mapping, Sequence

from rich.console import Console

from evaluation.compare import by_problem, common
from evaluation.scores import Paired, paired
from evaluation.stored import Grade
from jobs.runs.differ import Leaf, changed, code_files, parting
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say, table
from serl.run.rundir import Run, RunError
from serl.stages.exams import exams, round_grades, scored_rounds

MAX_FILES = 12
OF_PAIR = ("difference", "low", "high", "p", "p_mcnemar", "n", "verdict")
Scores = Mapping[str, tuple[float, float, Paired]]


def body(argv: Sequence[str]) -> int:
    p = parser("diff", "How two runs differ, in configuration, code, data and scores.")
    p.add_argument("first", help="a run's name, or its folder")
    p.add_argument("second", help="another")
    p.add_argument("--round", type=int, help="compare its scores (default: the last scored round of each)")
    args = p.parse_intermixed_args(argv)
    runs = tuple(find_run(name, data_root(args)) for name in (args.first, args.second))
    keys, files, data_from = changed(*runs), code_files(*runs), parting(*runs)
    rounds = [last_scored(run) if args.round is None else args.round for run in runs]
    scores = compared(*(grades(run, r) if r is not None else [] for run, r in zip(runs, rounds)))
    _show(runs, keys, files, data_from)
    _show_scores([f"{run.root.name} round {r}" for run, r in zip(runs, rounds)], scores)
    code = {"first": runs[0].code, "second": runs[1].code, "files": files}
    told = [
        {"benchmark": name, "first": a, "second": b} | {k: getattr(found, k) for k in OF_PAIR}
        for name, (a, b, found) in scores.items()
    ]
    fields = {"configuration": [{"key": k, "first": a, "second": b} for k, a, b in keys], "code": code}
    return Answer(fields=fields | {"data_differs_from": data_from, "rounds": rounds, "scores": told})


def last_scored(run: Run) -> int | None:
    return max(scored_rounds(run), default=None)


def grades(run: Run, round: int) -> list[Grade]:
    """The graded responses of a round; refuses one that is not scored."""
    if not exams(run.config, round):
        hint = "leave --round out, or choose one that both have"
        raise RunError(f"{run.root.name} scores no round {round}; {hint}")
    return round_grades(run, round)


def compared(first: Sequence[Grade], second: Sequence[Grade]) -> Scores:
    """By benchmark, both means over the common problems and the paired test."""
    pairs = common(by_problem(first), by_problem(second))
    return {name: (sum(a) / len(a), sum(b) / len(b), paired(a, b)) for name, (a, b) in pairs.items()}


def _show(
    runs: Sequence[Run], keys: Sequence[tuple[str, Leaf, Leaf]], files: Sequence[str], data_from: str | None
) -> None:
    if keys:
        rows = [(k, _text(a), _text(b)) for k, a, b in keys]
        Console().print(table(("key", *(run.root.name for run in runs)), rows))
    else:
        say("the configurations are equal")
    more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
    listed = f": {', '.join(files[:MAX_FILES])}{more}" if files else ""
    say(f"\ncode: {runs[0].code} and {runs[1].code}, {len(files)} files differ{listed}")
    say(f"their data differ from {data_from} on" if data_from else "what both have done has the same data")


def _show_scores(names: Sequence[str], scores: Scores) -> None:
    if not scores:
        say("they have no scores in common")
        return
    say(f"\nscores of {names[0]} and {names[1]}, and the second against the first:")
    for name, (a, b, f) in scores.items():
        change = f"{f.difference:+.3f} [{f.low:+.3f}, {f.high:+.3f}]"
        tests = f"p {f.p:.4f}, McNemar {f.p_mcnemar:.4f}, {f.n} problems: {f.verdict}"
        say(f"{name:<20} {a:.3f}  {b:.3f}  {change}, {tests}")


def _text(value: Leaf) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main(body)
