"""Grading stored responses: verdicts, vote classes and scores, without a model.

`python -m evaluation.grade RUN` reads every stored score of a run again, grades the text anew and says how
many verdicts changed. A stored row carries its gold answer, so that nothing but the run is needed.
"""

import argparse
import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from pydantic import TypeAdapter

from evaluation import command
from evaluation.answers import LEVELS, Level, Reading, letter_of, read
from evaluation.benchmark import Problem
from evaluation.domain import Answers
from evaluation.judging import Judge
from evaluation.letters import read_letter
from evaluation.mmlu_pro import Row, announces, extract_letter, official
from evaluation.scores import VERDICTS
from evaluation.stored import Grade, Letters, Response, stored
from evaluation.summary import Summary, summarise
from evaluation.thinking import DELIMITERS, Delimiters, spoken
from evaluation.verifier import Verifier
from evaluation.worker import Verdict

_ANSWERS: TypeAdapter[Answers] = TypeAdapter(Answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How responses are read: at which levels, how letters are found, and what delimits thoughts."""

    levels: tuple[Level, ...] = LEVELS
    letters: Letters = "official"
    thinking: Delimiters = DELIMITERS


def grade(
    problems: Sequence[Problem], responses: Sequence[Response], verifier: Verifier, rules: Rules = Rules()
) -> list[Grade]:
    """A grade for each response, in order."""
    known = {(problem.benchmark, problem.id): problem for problem in problems}
    return regrade([_ungraded(known, response, rules.letters) for response in responses], verifier, rules)


def regrade(grades: Sequence[Grade], verifier: Verifier, rules: Rules = Rules()) -> list[Grade]:
    """The same responses, read and judged anew; letters are found as each row says, and answers of a domain
    as that says.
    """
    found = dict(enumerate(grades))
    for domain in {row.domain for row in grades}:
        mine = [i for i, row in found.items() if row.domain == domain]
        rows = [grades[i] for i in mine]
        graded = _of_domain(rows, domain, rules) if domain else _of_kind(rows, verifier, rules)
        found |= dict(zip(mine, graded, strict=True))
    return list(found.values())


def _of_domain(grades: Sequence[Grade], domain: str, rules: Rules) -> list[Grade]:
    how = {"levels": rules.levels, "thinking": rules.thinking}
    with Judge(_ANSWERS.validate_json(domain).model_copy(update=how)) as judge:
        readings = [
            judge.read(row.question, row.response, finished=row.finish_reason != "length") for row in grades
        ]
        extracted = [reading and reading.text for reading in readings]
        golds = [judge.gold(row.question, row.gold) for row in grades]
        verdicts = judge.judge(list(zip(golds, extracted, strict=True)))
        return _graded(grades, readings, verdicts, _labels(grades, extracted, judge), rules)


def _of_kind(grades: Sequence[Grade], verifier: Verifier, rules: Rules) -> list[Grade]:
    readings = [_read(row, rules) for row in grades]
    extracted = [reading and reading.text for reading in readings]
    compared = [_pair(row, answer) for row, answer in zip(grades, extracted, strict=True)]
    judged = iter(verifier.judge([pair for pair in compared if pair is not None]))
    verdicts = [
        _choice(row, answer) if pair is None else next(judged)
        for row, answer, pair in zip(grades, extracted, compared, strict=True)
    ]
    return _graded(grades, readings, verdicts, _labels(grades, extracted, verifier), rules)


def _graded(
    grades: Sequence[Grade],
    readings: Sequence[Reading | None],
    verdicts: Sequence[Verdict],
    labels: Sequence[int | None],
    rules: Rules,
) -> list[Grade]:
    said = [spoken(row.response, rules.thinking) for row in grades]
    return [
        dataclasses.replace(
            row,
            extracted=reading and reading.text,
            reading=reading.level if reading else "",
            verdict=verdict,
            label=label,
            thought_chars=heard.thought_chars,
            unfinished=heard.unfinished,
        )
        for row, reading, verdict, label, heard in zip(grades, readings, verdicts, labels, said, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade a run again and print its scores."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.grade", description="Grade the stored responses of a run again."
    )
    parser.add_argument("run", type=Path, help="a run's folder, or its name")
    parser.add_argument(
        "--workers",
        type=command.at_least_one,
        default=os.cpu_count() or 1,
        help="processes that compare answers",
    )
    parser.add_argument("--limit", type=command.seconds, default=5.0, help="seconds per answer")
    parser.add_argument(
        "--parts", action="store_true", help="print also the scores by subject, level and group"
    )
    parser.add_argument(
        "--official",
        action="store_true",
        help="print also MMLU-Pro as its script does, guessing where there is no letter",
    )
    options = parser.parse_args(arguments)
    num_changed = num_rows = 0
    folder = command.run_folder(options.run)
    heading = (
        f"{'round':<10} {'benchmark':<20} {'metric':<12} {'value':>7} {'stderr':>7}  "
        f"{'95 % interval':<16} {'n':>6}"
    )
    print(heading, "", *VERDICTS)
    with Verifier(options.workers, options.limit) as verifier:
        for name, rows in stored(folder):
            again = regrade(rows, verifier)
            num_rows += len(rows)
            num_changed += sum(old.verdict != new.verdict for old, new in zip(rows, again, strict=True))
            for line in _table(name, summarise(again), parts=options.parts):
                print(line)
            for line in _official(name, again) if options.official else ():
                print(line)
    print(f"{num_changed} of {num_rows} verdicts differ from the stored ones")
    return 0


def _ungraded(known: Mapping[tuple[str, str], Problem], response: Response, letters: Letters) -> Grade:
    problem = known.get((response["benchmark"], response["id"]))
    if problem is None:
        raise ValueError(
            f"a response names problem {response['id']!r} of {response['benchmark']}, which is not among "
            "the problems"
        )
    return Grade(
        **response,
        kind=problem.kind,
        gold=problem.gold,
        num_choices=len(problem.choices),
        choice=problem.choices[ascii_uppercase.index(problem.gold)] if problem.kind == "letter" else "",
        tolerance=problem.tolerance,
        domain=problem.domain,
        question=problem.question if problem.kind == "python" else "",
        subject=problem.subject,
        level=problem.level,
        letters=letters,
    )


def _read(row: Grade, rules: Rules) -> Reading | None:
    """What a response answers; one that was cut off is never guessed at."""
    finished = row.finish_reason != "length"
    if row.kind == "choice" and row.letters == "official":
        letter = extract_letter(row.response, row.num_choices)
        return letter and Reading(text=letter, level="announced" if announces(row.response) else "last")
    if row.kind == "choice":
        return read_letter(
            row.response, row.num_choices, levels=rules.levels, finished=finished, thinking=rules.thinking
        )
    answer = read(row.response, levels=rules.levels, finished=finished, thinking=rules.thinking)
    if row.kind == "math":
        return answer
    letter = answer and letter_of(answer.text, row.num_choices)
    if answer is None or letter:
        return answer and dataclasses.replace(answer, text=letter or answer.text)
    chosen = read_letter(
        row.response, row.num_choices, levels=rules.levels, finished=finished, thinking=rules.thinking
    )
    return chosen if chosen and LEVELS.index(chosen.level) <= LEVELS.index(answer.level) else answer


def _pair(row: Grade, answer: str | None) -> tuple[str, str | None, float] | None:
    """What the computer algebra has to compare; None where letters settle it."""
    if row.kind == "math":
        return row.gold, answer, row.tolerance
    spelled = (
        row.kind == "letter"
        and answer is not None
        and answer not in tuple(ascii_uppercase[: row.num_choices])
    )
    return (row.choice, answer, row.tolerance) if spelled else None


def _choice(row: Grade, letter: str | None) -> Verdict:
    return "unparsed" if letter is None else "correct" if letter == row.gold else "wrong"


def _labels(
    grades: Sequence[Grade], extracted: Sequence[str | None], verifier: Verifier | Judge
) -> list[int | None]:
    """The class of each sample within its problem; greedy and truncated responses cast no vote."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(grades):
        if row.mode == "sample":
            groups[row.benchmark, row.id].append(i)
    votes = [
        [None if grades[i].finish_reason == "length" else extracted[i] for i in members]
        for members in groups.values()
    ]
    labels: list[int | None] = [None] * len(grades)
    for members, classes in zip(groups.values(), verifier.classes_many(votes), strict=True):
        for i, label in zip(members, classes.labels, strict=True):
            labels[i] = label
    return labels


def _official(name: str, rows: Sequence[Grade]) -> Iterator[str]:
    greedy = [row for row in rows if row.benchmark == "mmlu_pro" and row.mode == "greedy"]
    greedy.sort(key=lambda row: (len(row.id), row.id))  # the file's order within each category
    if greedy:
        found = official(
            Row(category=r.subject, response=r.response, num_choices=r.num_choices, gold=r.gold)
            for r in greedy
        )
        groups = ", ".join(f"{group} {value:.4f}" for group, value in found.groups.items())
        yield (
            f"{name:<10} mmlu_pro as published: {found.overall:.4f} ({groups}); {found.num_guessed} of "
            f"{len(greedy)} answers guessed"
        )


def _table(name: str, summaries: Mapping[str, Summary], *, parts: bool) -> Iterator[str]:
    for benchmark, summary in summaries.items():
        for part, scores in summary.parts.items() if parts else ():
            for value, result in scores.items():
                yield (
                    f"{name:<10} {benchmark:<20} {part} {value}: {result.value:.3f} [{result.low:.3f}, "
                    f"{result.high:.3f}] of {result.n}"
                )
        for metric, result in summary.metrics.items():
            counts = summary.counts["greedy" if metric == "pass_at_1" else "sample"]
            interval = f"[{result.low:.3f}, {result.high:.3f}]"
            numbers = f"{result.value:>7.3f} {result.stderr:>7.3f}  {interval:<16} {result.n:>6}"
            yield (
                f"{name:<10} {benchmark:<20} {metric:<12} {numbers}  "
                f"{' '.join(str(counts[verdict]) for verdict in VERDICTS)}"
            )
        read_at = ", ".join(
            f"{level} {found.right} of {found.answers}" for level, found in summary.readings.items()
        )
        if read_at:
            yield f"{name:<10} {benchmark:<20} right by reading: {read_at}"
        if summary.thoughts.responses:
            thoughts = summary.thoughts
            share = f"{thoughts.unfinished} of them unfinished, {thoughts.share:.0%} of the text"
            share += f", {thoughts.tokens:,} tokens" if thoughts.tokens else ""
            yield f"{name:<10} {benchmark:<20} thoughts in {thoughts.responses}, {share}"


if __name__ == "__main__":
    command.run(main)
