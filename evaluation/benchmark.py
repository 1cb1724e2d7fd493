"""Benchmarks as versioned data: `benchmarks/<name>.yaml` says what a file holds, the file itself lies in a
data folder.

Reading is strict: every refusal names the file and the line, because a benchmark that is silently short gives
a wrong score.
"""

import difflib
import functools
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator

from evaluation.choices import listed
from evaluation.domain import Answers
from evaluation.golds import Rule, apply
from evaluation.rows import rows, value_at

_ANSWERS: TypeAdapter[Answers] = TypeAdapter(Answers)
DESCRIPTIONS = Path(__file__).parent / "benchmarks"

_LETTERED = re.compile(r"(?:^|(?<=\s))\(?([A-Z])[).]\s?")

Kind = Literal["math", "choice", "letter", "text", "number", "python"]
"""`choice` follows the MMLU-Pro protocol; `letter` asks like a mathematics problem whose text lists the
choices; the last three are domains of `answers`.
"""
Prompt = Literal["question", "options", "mmlu_pro"]
"""`question` is asked as it is, `options` with its choices below it, `mmlu_pro` as the official script asks.
"""


class Fields(BaseModel):
    """Which field of a row holds what; None where the file has no such thing (an id is then the row's
    number).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    subject: str | None = None
    level: str | None = None
    choices: str | None = None
    reasoning: str | None = None


class Hub(BaseModel):
    """A Hugging Face dataset that holds the same rows, under its own field names; `{field}` in `question` is
    replaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    rename: dict[str, str] = {}


class Benchmark(BaseModel):
    """What is asked, where it comes from, and how it is scored.

    `gold` names the rule that makes a gold answer of the published one. `amended` rows have a gold that
    needed a person; `text` rows are prose that only the same prose equals; `unusable` rows have none that a
    response could be compared with, and are not asked. `response_tokens` is how long a response usually is:
    shards are balanced by it. `answers` says, in place of `kind` and `prompt`, what an answer is (see
    `domain`); of a choice the options are listed below the question.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = ""
    kind: Kind
    version: str = "unversioned"
    licence: str = "not stated"
    source: str = "not stated"
    file: str
    shots_file: str | None = None
    num_rows: int | None = None
    sha256: str | None = None
    metric: Literal["pass_at_1"] = "pass_at_1"
    prompt: Prompt = "question"
    answers: Answers | None = None
    gold: Rule = "as_is"
    tolerance: float = 0.0
    response_tokens: int = 300
    fields: Fields = Fields()
    hub: Hub | None = None
    amended: dict[str, str] = {}
    text: tuple[str, ...] = ()
    unusable: dict[str, str] = {}

    @field_validator("amended", "unusable", mode="before")
    @classmethod
    def _keys(cls, listed: object) -> object:
        return {str(key): value for key, value in listed.items()} if isinstance(listed, dict) else listed

    @field_validator("text", mode="before")
    @classmethod
    def _ids(cls, listed: object) -> object:
        return tuple(map(str, listed)) if isinstance(listed, list) else listed

    @model_validator(mode="before")
    @classmethod
    def _domain(cls, tree: object) -> object:
        """The kind and the prompt that `answers` stands for."""
        answers = tree.get("answers") if isinstance(tree, dict) else None
        kind = answers.get("kind") if isinstance(answers, dict) else None
        if kind is None:
            return tree
        implied = {"kind": "letter", "prompt": "options"} if kind == "choice" else {"kind": kind}
        if any(tree.get(key, value) != value for key, value in implied.items()):
            raise ValueError("answers: says kind and prompt too; leave those out")
        return tree | implied | {"answers": _ANSWERS.validate_json(json.dumps(answers))}

    @property
    def domain(self) -> str:
        """What its rows store of `answers`; empty where their kind says it."""
        own = self.answers is not None and self.kind in ("text", "number", "python")
        return self.answers.model_dump_json(exclude={"levels", "thinking"}) if own else ""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.kind == "choice") != (self.prompt == "mmlu_pro"):
            raise ValueError(
                f"kind {self.kind} with prompt {self.prompt}: kind choice and prompt mmlu_pro need each other"
            )
        if self.prompt == "options" and (self.kind != "letter" or self.fields.choices is None):
            raise ValueError("prompt options: needs kind letter and the choices (fields.choices)")
        if twice := set(self.unusable) & (set(self.text) | set(self.amended)):
            raise ValueError(
                f"rows {sorted(twice)} are listed as unusable and also otherwise; list each once"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question with its gold answer; `choices` and `reasoning` (of a worked example) are empty where
    there are none.

    A number within `tolerance` of the gold, relatively, is correct too. `domain` are the benchmark's
    `answers` as JSON, where its kind does not say how answers are read.
    """

    benchmark: str
    id: str
    question: str
    gold: str
    kind: Kind = "math"
    subject: str = ""
    level: str = ""
    choices: tuple[str, ...] = ()
    reasoning: str = ""
    tolerance: float = 0.0
    domain: str = ""


def benchmark_names(folder: Path = DESCRIPTIONS) -> list[str]:
    """The benchmarks described in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_benchmark(name: str, folder: Path = DESCRIPTIONS) -> Benchmark:
    """The description of a benchmark."""
    names = benchmark_names(folder)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise ValueError(f"no benchmark named {name!r} in {folder}; nearest: {', '.join(near)}")
    path = folder / f"{name}.yaml"
    return _described(path, path.read_text(encoding="utf-8"))


@functools.cache  # a sweep's plan asks for the same few descriptions thousands of times
def _described(path: Path, text: str) -> Benchmark:
    try:
        benchmark = Benchmark.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if benchmark.name != path.stem:
        raise ValueError(f"{path}: name is {benchmark.name!r}; a description's name is its file name")
    return benchmark


def load_problems(benchmark: Benchmark, folders: Sequence[Path]) -> list[Problem]:
    """The usable problems of a benchmark, from the first folder that has its file."""
    return _problems(benchmark, _find(benchmark, benchmark.file, folders), benchmark.num_rows)


def read_problems(benchmark: Benchmark, path: Path) -> list[Problem]:
    """The usable problems of a benchmark, from a given file."""
    return _problems(benchmark, path, benchmark.num_rows)


def load_shots(benchmark: Benchmark, folders: Sequence[Path]) -> list[Problem]:
    """The worked examples of a benchmark; none if it has no file of them."""
    if benchmark.shots_file is None:
        return []
    return _problems(benchmark, _find(benchmark, benchmark.shots_file, folders), None)


def _find(benchmark: Benchmark, file: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    places = ", ".join(str(folder) for folder in folders) or "no folder given"
    raise ValueError(
        f"benchmark {benchmark.name}: {file} is in none of: {places}; it comes from {benchmark.source}; "
        f"put it there with `python -m evaluation.fetch {benchmark.name} --data ROOT --from FOLDER`"
    )


def _problems(benchmark: Benchmark, path: Path, num_rows: int | None) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for line, row in rows_of(path):
        problem = _problem(benchmark, row, f"{path}:{line}", line - 1)
        if problem.id in problems:
            raise ValueError(f"{path}:{line}: id {problem.id!r} occurs twice")
        problems[problem.id] = problem
    if not problems:
        raise ValueError(f"{path}: the file is empty")
    if num_rows is not None and len(problems) != num_rows:
        raise ValueError(
            f"{path}: {len(problems)} rows, but {benchmark.name} version {benchmark.version} has {num_rows}"
        )
    if num_rows is not None:
        _refuse_unknown(benchmark, problems, path)
    return [problem for problem in problems.values() if problem.id not in benchmark.unusable]


def _refuse_unknown(benchmark: Benchmark, problems: Mapping[str, Problem], path: Path) -> None:
    listed = {*benchmark.amended, *benchmark.text, *benchmark.unusable}
    if unknown := sorted(listed - set(problems)):
        raise ValueError(
            f"{path}: the description of {benchmark.name} lists rows {unknown[:5]} that the file does not "
            "have"
        )


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file, with their numbers: of JSON lines (.gz too) those of the lines."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from ((number, row) for number, (_, row) in enumerate(rows(path), 1))
        return
    line = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as lines
        ):
            for line, text in enumerate(lines, start=1):
                if not text.strip():
                    continue
                match json.loads(text):
                    case dict() as row:
                        yield line, row
                    case _:
                        raise ValueError(f"{path}:{line}: not a JSON object")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{line}: not JSON ({error})") from error
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path}: named .gz, but not gzip; compress it or drop the suffix") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged after line {line} ({error}); fetch it again") from error


def _problem(benchmark: Benchmark, row: dict[str, Any], where: str, number: int) -> Problem:
    fields = benchmark.fields
    choices = _choices(row, fields.choices, where)
    id = _text(row, fields.id, where) if fields.id else str(number)
    gold = benchmark.amended.get(id) or _gold(benchmark, row, where)
    if benchmark.kind in ("choice", "letter") and gold not in tuple(ascii_uppercase[: len(choices)]):
        raise ValueError(
            f"{where}: the gold {gold!r} in field {fields.answer!r} is none of the {len(choices)} choices' "
            "letters"
        )
    question = _text(row, fields.question, where)
    return Problem(
        benchmark=benchmark.name,
        id=id,
        question=listed(question, choices) if benchmark.prompt == "options" else question,
        gold=gold,
        kind=benchmark.kind,
        subject=_text(row, fields.subject, where) if fields.subject else "",
        level=_text(row, fields.level, where) if fields.level else "",
        choices=choices,
        reasoning=_text(row, fields.reasoning, where) if fields.reasoning else "",
        tolerance=benchmark.tolerance,
        domain=benchmark.domain,
    )


def _gold(benchmark: Benchmark, row: dict[str, Any], where: str) -> str:
    """One line; of a list of golds a line each, where the domain lets any of them be right."""
    field = benchmark.fields.answer
    several = _value(row, field, where) if benchmark.domain else None
    if not isinstance(several, list):
        return apply(benchmark.gold, _text(row, field, where))
    return "\n".join(" ".join(apply(benchmark.gold, str(gold)).split("\n")) for gold in several)


def _value(row: dict[str, Any], field: str, where: str) -> object:
    try:
        return value_at(row, field)
    except KeyError:
        raise ValueError(f"{where}: field {field!r} is missing; the row has {', '.join(row)}") from None


def _text(row: dict[str, Any], field: str, where: str) -> str:
    value = _value(row, field, where)
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{where}: field {field!r} is not text; the row has {', '.join(row)}")


def _choices(row: dict[str, Any], field: str | None, where: str) -> tuple[str, ...]:
    """The choices' texts without their letters; some files have them all in one text, `A) .. B) ..`."""
    if field is None:
        return ()
    values = _value(row, field, where)
    if isinstance(values, str):
        starts = [found.start() for found in _LETTERED.finditer(values)]
        values = [values[i:j].strip() for i, j in zip(starts, [*starts[1:], len(values)], strict=True)]
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(value, str) for value in values)
        or len(values) > 26
    ):
        raise ValueError(f"{where}: field {field!r} must be a list of 1 to 26 texts")
    lettered = [_LETTERED.match(value) for value in values]
    if all(found and found[1] == letter for found, letter in zip(lettered, ascii_uppercase, strict=False)):
        values = [_LETTERED.sub("", value, count=1).strip() for value in values]
    return tuple(values)
