"""Grading stored responses: verdicts, vote classes and scores, without a model.

`python -m evaluation.grade RUN` reads every stored score of a run again, grades the text anew and says how many verdicts changed.
A stored row carries its gold answer, so that nothing but the run is needed.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Literal, TypedDict, assert_never

from evaluation.answers import extract, letter_of
from evaluation.benchmark import Kind, Problem
from evaluation.mmlu_pro import GROUPS, Row, extract_letter, official
from evaluation.scores import VERDICTS, Score, avg_at_k, count_verdicts, maj_at_k, pass_at_1, pass_at_k, score
from evaluation.verifier import Verifier
from evaluation.worker import Verdict

Mode = Literal["greedy", "sample"]
Part = Literal["subject", "level", "group"]


class Response(TypedDict):
    """One answer of a model to a problem of a benchmark, as stored."""

    benchmark: str
    id: str
    sample: int
    mode: Mode
    response: str
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A response with its verdict; `label` is its class among the samples of its problem, None where it casts no vote.

    `choice` is the text of the right choice where the answer may be given as a letter or as that text.
    """

    benchmark: str
    id: str
    sample: int
    mode: Mode
    response: str
    finish_reason: str
    kind: Kind
    gold: str
    num_choices: int
    choice: str = ""
    tolerance: float = 0.0
    subject: str = ""
    level: str = ""
    extracted: str | None = None
    verdict: Verdict = "unparsed"
    label: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The metrics of a benchmark, and how many responses of each mode got each verdict.

    `parts` splits the first metric: by `subject`, by `level`, and by `group` where the subjects are MMLU-Pro's; a group's mean
    weighs its categories by their numbers of questions. `curve[k]` is pass@k for k = 1, 2, 4 .. as far as there are samples.
    """

    metrics: dict[str, Score]
    counts: dict[Mode, dict[Verdict, int]]
    parts: dict[Part, dict[str, Score]] = dataclasses.field(default_factory=dict)
    curve: dict[int, Score] = dataclasses.field(default_factory=dict)


def grade(problems: Sequence[Problem], responses: Sequence[Response], verifier: Verifier) -> list[Grade]:
    """A grade for each response, in order."""
    known = {(problem.benchmark, problem.id): problem for problem in problems}
    return regrade([_ungraded(known, response) for response in responses], verifier)


def regrade(grades: Sequence[Grade], verifier: Verifier) -> list[Grade]:
    """The same responses, read and judged anew."""
    extracted = [_extract(row) for row in grades]
    compared = [_pair(row, answer) for row, answer in zip(grades, extracted, strict=True)]
    judged = iter(verifier.judge([pair for pair in compared if pair is not None]))
    verdicts = [
        _choice(row, answer) if pair is None else next(judged) for row, answer, pair in zip(grades, extracted, compared, strict=True)
    ]
    labels = _labels(grades, extracted, verifier)
    return [
        dataclasses.replace(row, extracted=answer, verdict=verdict, label=label)
        for row, answer, verdict, label in zip(grades, extracted, verdicts, labels, strict=True)
    ]


def summarise(grades: Sequence[Grade]) -> dict[str, Summary]:
    """The scores of each benchmark: pass_at_1 from greedy responses; avg, pass and maj at k from samples."""
    benchmarks: dict[str, list[Grade]] = defaultdict(list)
    for row in grades:
        benchmarks[row.benchmark].append(row)
    return {name: _summary(rows) for name, rows in benchmarks.items()}


def read_rows(path: Path) -> list[Grade]:
    """The stored grades of a JSON-lines file."""
    rows = []
    fields = {field.name for field in dataclasses.fields(Grade)}
    with path.open(encoding="utf-8") as lines:
        for line, text in enumerate(lines, start=1):
            try:
                row = json.loads(text)
                rows.append(Grade(**{key: value for key, value in row.items() if key in fields}))
            except (json.JSONDecodeError, AttributeError, TypeError) as error:
                raise ValueError(f"{path}:{line}: not a stored grade ({error})") from error
    return rows


def stored(run: Path) -> Iterator[tuple[str, list[Grade]]]:
    """The grades of each scored round of a run; refuses files that differ from their manifest."""
    folders = {path.parent.name: path for path in run.glob("round_*/score") if path.is_dir()} | _shared(run)
    if not folders:
        raise ValueError(f"{run}: no round has scores (round_*/score); nothing to grade")
    for round, folder in sorted(folders.items()):
        rows = []
        for manifest in sorted(folder.glob("shard_*.json")):
            rows.extend(_shard_rows(manifest))
        if rows:
            yield round, rows


def _shared(run: Path) -> dict[str, Path]:
    """Where a trial of a sweep has the scores that it shares with others, by round; its `run.json` names them."""
    try:
        keys = json.loads((run / "run.json").read_bytes()).get("shared", {})
    except FileNotFoundError:
        return {}
    return {f"round_{name[1:4]}": run.resolve().parent.parent / "shared" / key for name, key in keys.items() if name.endswith("-score")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade a run again and print its scores."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.grade", description="Grade the stored responses of a run again.")
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that compare answers")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds per answer")
    parser.add_argument("--parts", action="store_true", help="print also the scores by subject, level and group")
    parser.add_argument("--official", action="store_true", help="print also MMLU-Pro as its script does, guessing where there is no letter")
    options = parser.parse_args(arguments)
    num_changed = num_rows = 0
    heading = f"{'round':<10} {'benchmark':<20} {'metric':<12} {'value':>7} {'stderr':>7}  {'95 % interval':<16} {'n':>6}"
    print(heading, "", *VERDICTS)
    with Verifier(options.workers, options.limit) as verifier:
        for name, rows in stored(options.run):
            again = regrade(rows, verifier)
            num_rows += len(rows)
            num_changed += sum(old.verdict != new.verdict for old, new in zip(rows, again, strict=True))
            for line in _table(name, summarise(again), parts=options.parts):
                print(line)
            for line in _official(name, again) if options.official else ():
                print(line)
    print(f"{num_changed} of {num_rows} verdicts differ from the stored ones")
    return 0


def _ungraded(known: Mapping[tuple[str, str], Problem], response: Response) -> Grade:
    problem = known.get((response["benchmark"], response["id"]))
    if problem is None:
        raise ValueError(f"a response names problem {response['id']!r} of {response['benchmark']}, which is not among the problems")
    return Grade(
        **{field: response[field] for field in Response.__annotations__},
        kind=problem.kind,
        gold=problem.gold,
        num_choices=len(problem.choices),
        choice=problem.choices[ascii_uppercase.index(problem.gold)] if problem.kind == "letter" else "",
        tolerance=problem.tolerance,
        subject=problem.subject,
        level=problem.level,
    )


def _extract(row: Grade) -> str | None:
    match row.kind:
        case "math":
            return extract(row.response)
        case "choice":
            return extract_letter(row.response, row.num_choices)
        case "letter":
            answer = extract(row.response)
            return answer and (letter_of(answer, row.num_choices) or answer)
        case _:
            assert_never(row.kind)


def _pair(row: Grade, answer: str | None) -> tuple[str, str | None, float] | None:
    """What the computer algebra has to compare; None where letters settle it."""
    if row.kind == "math":
        return row.gold, answer, row.tolerance
    spelled = row.kind == "letter" and answer is not None and answer not in tuple(ascii_uppercase[: row.num_choices])
    return (row.choice, answer, row.tolerance) if spelled else None


def _choice(row: Grade, letter: str | None) -> Verdict:
    return "unparsed" if letter is None else "correct" if letter == row.gold else "wrong"


def _labels(grades: Sequence[Grade], extracted: Sequence[str | None], verifier: Verifier) -> list[int | None]:
    """The class of each sample within its problem; greedy and truncated responses cast no vote."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(grades):
        if row.mode == "sample":
            groups[row.benchmark, row.id].append(i)
    votes = [[None if grades[i].finish_reason == "length" else extracted[i] for i in members] for members in groups.values()]
    labels: list[int | None] = [None] * len(grades)
    for members, classes in zip(groups.values(), verifier.classes_many(votes), strict=True):
        for i, label in zip(members, classes.labels, strict=True):
            labels[i] = label
    return labels


def _summary(rows: Sequence[Grade]) -> Summary:
    greedy = [row for row in rows if row.mode == "greedy"]
    samples: dict[str, list[Grade]] = defaultdict(list)
    for row in rows:
        if row.mode == "sample":
            samples[row.id].append(row)
    metrics = {"pass_at_1": pass_at_1([row.verdict == "correct" for row in greedy])} if greedy else {}
    if samples:
        correct = [[row.verdict == "correct" for row in members] for members in samples.values()]
        k = min(len(members) for members in correct)
        metrics[f"avg_at_{k}"] = avg_at_k(correct)
        metrics[f"pass_at_{k}"] = score([pass_at_k(len(members), sum(members), k) for members in correct])
        metrics[f"maj_at_{k}"] = score([_majority(members) for members in samples.values()])
    modes: tuple[Mode, ...] = ("greedy", "sample")
    counts = {mode: count_verdicts([row.verdict for row in rows if row.mode == mode]) for mode in modes}
    return Summary(metrics=metrics, counts=counts, parts=_parts(greedy or rows), curve=_curve(samples))


def _curve(samples: Mapping[str, Sequence[Grade]]) -> dict[int, Score]:
    """Unbiased pass@k for every power of two that each problem has samples for."""
    counts = [(len(members), sum(row.verdict == "correct" for row in members)) for members in samples.values()]
    fewest = min((n for n, _ in counts), default=0)
    return {k: score([pass_at_k(n, c, k) for n, c in counts]) for k in (2**i for i in range(fewest.bit_length())) if k <= fewest}


def _parts(rows: Sequence[Grade]) -> dict[Part, dict[str, Score]]:
    group_of = {subject: group for group, subjects in GROUPS.items() for subject in subjects}
    keys: dict[Part, Callable[[Grade], str]] = {"subject": lambda row: row.subject, "level": lambda row: row.level}
    if rows and all(row.kind == "choice" and row.subject in group_of for row in rows):
        keys["group"] = lambda row: group_of[row.subject]
    parts: dict[Part, dict[str, Score]] = {}
    for part, key in keys.items():
        values: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            values[key(row)][row.id].append(row.verdict == "correct")
        if set(values) - {""}:
            parts[part] = {name: avg_at_k(list(problems.values())) for name, problems in sorted(values.items())}
    return parts


def _majority(samples: Sequence[Grade]) -> float:
    """Whether the majority answer is correct; a class is as its members are, by their own majority."""
    members: dict[int, list[bool]] = defaultdict(list)
    for row in samples:
        if row.label is not None:
            members[row.label].append(row.verdict == "correct")
    return maj_at_k([row.label for row in samples], {label: 2 * sum(right) > len(right) for label, right in members.items()})


def _shard_rows(manifest: Path) -> list[Grade]:
    files = json.loads(manifest.read_text())["files"]
    rows: list[Grade] = []
    for file in files:
        path = manifest.parent / file["name"]
        if path.suffix != ".jsonl":
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            raise ValueError(f"{path}: its content differs from what {manifest.name} recorded; the shard must be made again")
        rows.extend(read_rows(path))
    return rows


def _official(name: str, rows: Sequence[Grade]) -> Iterator[str]:
    greedy = [row for row in rows if row.benchmark == "mmlu_pro" and row.mode == "greedy"]
    greedy.sort(key=lambda row: (len(row.id), row.id))  # the file's order within each category
    if greedy:
        found = official(Row(category=r.subject, response=r.response, num_choices=r.num_choices, gold=r.gold) for r in greedy)
        groups = ", ".join(f"{group} {value:.4f}" for group, value in found.groups.items())
        yield f"{name:<10} mmlu_pro as published: {found.overall:.4f} ({groups}); {found.num_guessed} of {len(greedy)} answers guessed"


def _table(name: str, summaries: Mapping[str, Summary], *, parts: bool) -> Iterator[str]:
    for benchmark, summary in summaries.items():
        for part, scores in summary.parts.items() if parts else ():
            for value, result in scores.items():
                yield f"{name:<10} {benchmark:<20} {part} {value}: {result.value:.3f} [{result.low:.3f}, {result.high:.3f}] of {result.n}"
        for metric, result in summary.metrics.items():
            counts = summary.counts["greedy" if metric == "pass_at_1" else "sample"]
            interval = f"[{result.low:.3f}, {result.high:.3f}]"
            numbers = f"{result.value:>7.3f} {result.stderr:>7.3f}  {interval:<16} {result.n:>6}"
            yield f"{name:<10} {benchmark:<20} {metric:<12} {numbers}  {' '.join(str(counts[verdict]) for verdict in VERDICTS)}"


if __name__ == "__main__":
    sys.exit(main())
