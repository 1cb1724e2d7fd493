"""How two runs differ: `python -m jobs.diff RUN RUN [--round R]`.

Configuration keys with other values, the code they were launched with, the first stage whose results are not the same bytes, and the scores of
their last scored rounds (or of round R) side by side, with the paired test of evaluation.compare over the problems that both were asked.

JSON: `configuration` (each `key first second`; null where a run has no such key), `code` (`first second files`, the files that differ),
`data_differs_from` (a stage's name, or null), `scores` (each `benchmark first second difference low high p p_mcnemar n verdict`), `rounds`.
"""

import filecmp
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.compare import by_problem, common
from evaluation.scores import Paired, paired
from evaluation.stored import Grade, read_rows
from jobs.plan.chain import job_name, steps
from jobs.reporting.policies import scored_rounds
from jobs.runs.find import PACKAGES, find_run
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.rundir import Run, RunError

Leaf = str | int | float | bool | list | None
MAX_FILES = 12


def body(argv: Sequence[str]) -> int:
    p = parser("diff", "How two runs differ, in configuration, code, data and scores.")
    p.add_argument("first", help="a run's name, or its folder")
    p.add_argument("second", help="another")
    p.add_argument(
        "--round", type=int, help="compare the scores of this round (default: of the last scored one of each)"
    )
    args = p.parse_intermixed_args(argv)
    data = data_root(args)
    first, second = find_run(args.first, data), find_run(args.second, data)
    keys = changed(leaves(first), leaves(second))
    files = sorted(code_files(first.root / "code", second.root / "code"))
    data_from = parting(first, second)
    rounds = [last_scored(run) if args.round is None else args.round for run in (first, second)]
    scores = compared(*(grades(run, r) if r is not None else [] for run, r in zip((first, second), rounds)))
    console = Console()
    _show(console, (first, second), keys, files, data_from)
    _show_scores(console, (first, second), rounds, scores)
    return Answer(
        fields={
            "configuration": [{"key": k, "first": a, "second": b} for k, a, b in keys],
            "code": {"first": first.code, "second": second.code, "files": files}, "data_differs_from": data_from, "rounds": rounds,
            "scores": [_fields(name, a, b, found) for name, (a, b, found) in scores.items()],
        }
    )  # fmt: skip


def leaves(run: Run) -> dict[str, Leaf]:
    """The configuration as dotted keys; lists are values."""

    def walk(value: object, prefix: str) -> Iterator[tuple[str, Leaf]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(inner, f"{prefix}.{key}" if prefix else key)
        else:
            yield prefix, value

    return dict(walk(run.config.model_dump(mode="json"), ""))


def changed(first: Mapping[str, Leaf], second: Mapping[str, Leaf]) -> list[tuple[str, Leaf, Leaf]]:
    """Keys with other values, in the order of the schema; the name of a run is no difference."""
    keys = [k for k in dict.fromkeys([*first, *second]) if k != "name"]
    return [(k, first.get(k), second.get(k)) for k in keys if first.get(k) != second.get(k)]


def code_files(first: Path, second: Path) -> Iterator[str]:
    """Files of the frozen code that one of the two has otherwise, or not at all."""
    for package in PACKAGES:
        names = {
            str(p.relative_to(root))
            for root in (first, second)
            for p in (root / package).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        }
        for name in names:
            a, b = first / name, second / name
            if not (a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False)):
                yield name


def parting(first: Run, second: Run) -> str | None:
    """The first stage that both have done with different results; None while what both have done is the same."""
    for round, stage in steps(first.config):
        if (round, stage) not in steps(second.config):
            continue
        digests = [
            [m.digest if (m := run.manifest(s)) else None for s in run.shards(round, stage)]
            for run in (first, second)
        ]
        if None not in (*digests[0], *digests[1]) and digests[0] != digests[1]:
            return job_name(round, stage)
    return None


def last_scored(run: Run) -> int | None:
    return max(scored_rounds(run), default=None)


def grades(run: Run, round: int) -> list[Grade]:
    """The graded responses of a round; refuses one that is not scored."""
    scoring = run.config.giving(round, "grades")
    if scoring is None:
        raise RunError(
            f"{run.root.name} scores no round {round}; leave --round out, or choose one that both have"
        )
    manifests = run.complete(round, scoring.name)
    return [row for m in manifests for row in read_rows(run.path(m, m.files[0]))]


def compared(first: Sequence[Grade], second: Sequence[Grade]) -> dict[str, tuple[float, float, Paired]]:
    """By benchmark, both means over the common problems and the paired test."""
    pairs = common(by_problem(first), by_problem(second))
    return {name: (sum(a) / len(a), sum(b) / len(b), paired(a, b)) for name, (a, b) in pairs.items()}


def _fields(name: str, first: float, second: float, found: Paired) -> dict[str, object]:
    shown = {
        "benchmark": name,
        "first": first,
        "second": second,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }
    return shown | {"p": found.p, "p_mcnemar": found.p_mcnemar, "n": found.n, "verdict": found.verdict}


def _show(
    console: Console,
    runs: tuple[Run, Run],
    keys: Sequence[tuple[str, Leaf, Leaf]],
    files: Sequence[str],
    data_from: str | None,
) -> None:
    first, second = runs
    if keys:
        console.print(
            _table(("key", first.root.name, second.root.name), [(k, _text(a), _text(b)) for k, a, b in keys])
        )
    else:
        console.print("the configurations are equal")
    more = f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
    listed = f": {', '.join(files[:MAX_FILES])}{more}" if files else ""
    console.print(
        f"\ncode: {first.code} and {second.code}, {len(files)} files differ{listed}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    said = f"their data differ from {data_from} on" if data_from else "what both have done has the same data"
    console.print(said, markup=False, highlight=False)


def _show_scores(
    console: Console,
    runs: tuple[Run, Run],
    rounds: Sequence[int | None],
    scores: Mapping[str, tuple[float, float, Paired]],
) -> None:
    if not scores:
        console.print("they have no scores in common")
        return
    names = [f"{run.root.name} round {r}" for run, r in zip(runs, rounds)]
    console.print(
        f"\nscores of {names[0]} and {names[1]}, and the second against the first:",
        markup=False,
        highlight=False,
    )
    for name, (a, b, f) in scores.items():
        said = f"{f.difference:+.3f} [{f.low:+.3f}, {f.high:+.3f}], p {f.p:.4f}, McNemar {f.p_mcnemar:.4f}, {f.n} problems: {f.verdict}"
        console.print(f"{name:<20} {a:.3f}  {b:.3f}  {said}", markup=False, highlight=False, soft_wrap=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for cells in rows:
        table.add_row(*(Text(c) for c in cells))
    return table


def _text(value: Leaf) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main(body)
