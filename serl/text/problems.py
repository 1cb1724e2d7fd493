"""Reading a user's problems: every fault is a sentence with file, line, field and remedy, before any model is
loaded.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation import choices, golds, rows
from evaluation.domain import Answers
from serl.config.base import Corpus
from serl.stages.sources import (
    Fields,
    GeneratedProblems,
    HubPairs,
    HubProblems,
    HubTexts,
    JsonlPairs,
    JsonlProblems,
    JsonlTexts,
    Pairs,
    Problems,
    Texts,
)

if TYPE_CHECKING:
    from serl.records import Problem  # needs pyarrow, which completion and plans do without

_ARITHMETIC = ("arithmetic.jsonl", "arithmetic_choice.jsonl", "arithmetic_validation.jsonl")
_THINGS = ("things.jsonl", "things_validation.jsonl")
GENERATED_BENCHMARKS = (*_ARITHMETIC, *_THINGS)
CORPUS_FILES = {"seeds": "seeds.jsonl", "problems": "problems.jsonl"}


def generated_rows(corpus: Corpus) -> dict[str, int]:
    """How many problems the corpus stage writes for each generated benchmark."""
    if corpus.world == "things":
        return dict(zip(_THINGS, (corpus.test_problems, corpus.validation_problems), strict=True))
    counts = (corpus.test_problems, corpus.choice_problems, corpus.validation_problems)
    return dict(zip(_ARITHMETIC, counts, strict=True))


def load_problems(
    source: JsonlProblems | HubProblems | GeneratedProblems, *, data_root: Path, corpus: Path
) -> "list[Problem]":
    """The problems of `source`; `corpus` is where round 0's corpus stage publishes."""
    match source:
        case JsonlProblems():
            return _problems(source_rows(source, data_root), source, str(_path(source.path, data_root)))
        case GeneratedProblems():
            path = corpus / CORPUS_FILES[source.part]
            return _problems(rows.rows(path), Fields(gold="answer", gold_rule="as_is"), str(path))
        case HubProblems():
            return _problems(source_rows(source, data_root), source, f"dataset {source.name}")


def source_rows(
    source: JsonlProblems | HubProblems | JsonlPairs | HubPairs | JsonlTexts | HubTexts, data_root: Path
) -> rows.Rows:
    """(place, row) of a file, or of a dataset."""
    match source:
        case JsonlProblems() | JsonlPairs() | JsonlTexts():
            return rows.rows(_path(source.path, data_root))
        case HubProblems() | HubPairs() | HubTexts():
            return _dataset(source)


def _path(path: str, data_root: Path) -> Path:
    return Path(path) if Path(path).is_absolute() else data_root / "seeds" / path


def check_source(
    source: Problems | None, data_root: Path, wanted: Mapping[str, int], answers: Answers
) -> None:
    """Raises ValueError where problems from outside the run cannot be read, do not fit the run's `answers`,
    or are fewer than a key (`wanted`) asks for.
    """
    if source is None or isinstance(source, GeneratedProblems):
        return
    found = load_problems(source, data_root=data_root, corpus=data_root)
    _check_answers(found, answers, source)
    there = len(found)
    for key, number in wanted.items():
        if number > there:
            raise ValueError(
                f"{key} {number}: the configured source has {there} seed problems; ask for fewer, or give "
                "more"
            )


def source_files(source: Problems | Pairs | Texts | None, data_root: Path) -> dict[str, Path]:
    """The files and folders that a source is read from; of the hub, or of the run's own world, there are
    none.
    """
    match source:
        case JsonlProblems() | JsonlPairs() | JsonlTexts():
            return {source.path: _path(source.path, data_root)}
        case HubProblems() | HubPairs() | HubTexts() if Path(source.name).is_dir():
            return {source.name: Path(source.name)}
        case _:
            return {}


def fingerprint(problems: Iterable[object]) -> str:
    """Tells whether two stages saw the same problems: a source outside the run may be edited while the run
    goes on.
    """
    from serl.records import to_jsonl

    return hashlib.sha256(to_jsonl(problems)).hexdigest()[:16]


def _check_answers(problems: "Sequence[Problem]", answers: Answers, source: Fields) -> None:
    from evaluation.judging import Judge

    with Judge(answers) as judge:
        judge.check()
        fault = judge.first_fault([(p.question, p.gold) for p in problems])
    if fault:
        row, what = fault
        known = "" if source.gold is None else f"; its field is {source.gold!r}, read by gold_rule "
        rule = known and f"{source.gold_rule or 'null (by what all rows look like)'}"
        raise ValueError(
            f"{getattr(source, 'path', None) or source.name}: problem {row + 1} "
            f"({problems[row].question[:80]!r}): for answers of kind {answers.kind} it {what}{known}{rule}"
        )


def _dataset(source: HubProblems | HubPairs | HubTexts) -> Iterator[tuple[str, object]]:
    from datasets import DatasetDict, load_dataset, load_from_disk

    saved = Path(source.name)
    try:
        if (saved / "state.json").is_file() or (saved / "dataset_dict.json").is_file():
            found = load_from_disk(source.name)
            found = found[source.split] if isinstance(found, DatasetDict) else found
        else:
            found = load_dataset(source.name, source.config, split=source.split)
    except KeyError:
        raise ValueError(
            f"dataset {source.name!r}: no split {source.split!r}; it has {', '.join(found)}"
        ) from None
    except (OSError, ValueError, RuntimeError) as e:
        raise ValueError(
            f"dataset {source.name!r}, config {source.config!r}, split {source.split!r}: cannot be loaded "
            f"({e}); set `config` and `split`, give a local folder, or a file"
        ) from e
    for number, row in enumerate(found, 1):
        yield f"dataset {source.name} row {number}", row


def _problems(found: Iterable[tuple[str, object]], fields: Fields, source: str) -> "list[Problem]":
    from serl.records import Problem

    asked: list[tuple[str, list[str]]] = []
    for place, row in found:
        _validate_row(row, place)
        several = _golds(row, fields.gold, place) if fields.gold else []
        asked.append((_question(row, fields, place), several))
    if not asked:
        raise ValueError(f"{source}: empty; give at least one problem")
    rule = fields.gold_rule or golds.guessed([gold for _, several in asked for gold in several])
    return [
        Problem(
            id=f"{number:06d}",
            question=question,
            gold="\n".join(" ".join(golds.apply(rule, g).split("\n")) for g in several) or None,
        )
        for number, (question, several) in enumerate(asked)
    ]


def _validate_row(row: object, place: str) -> None:
    if not isinstance(row, dict):
        # The user's data is wrong, not a caller's type.
        raise ValueError(  # noqa: TRY004
            f"{place}: {type(row).__name__}, not a JSON object; write one object per line"
        )


def text_field(row: object, name: str, place: str) -> str:
    """The text, or number as text, that a row has under a name."""
    _validate_row(row, place)
    return _text(_value(row, name, place), name, place)


def _question(row: dict, fields: Fields, place: str) -> str:
    """The question as it is asked: with its options below it, where it has any."""
    question = _text(_value(row, fields.question, place), fields.question, place)
    if fields.choices is None:
        return question
    if isinstance(fields.choices, str):
        given = _value(row, fields.choices, place)
        given = given.get("text") if isinstance(given, dict) else given  # as ARC has them
    else:
        given = [_value(row, name, place) for name in fields.choices]
    if not isinstance(given, list) or not 2 <= len(given) <= choices.MAX_OPTIONS:
        raise ValueError(
            f"{place}: field {fields.choices!r} is {given!r}, not a list of 2 to {choices.MAX_OPTIONS} texts"
        )
    options = [_text(option, str(fields.choices), place) for option in given]
    return choices.listed(question, [choices.unlettered(option, i) for i, option in enumerate(options)])


def _golds(row: dict, name: str, place: str) -> list[str]:
    value = _value(row, name, place)
    several = value if isinstance(value, list) and value else [value]
    return [_text(gold, name, place) for gold in several]


def _value(row: dict, name: str, place: str) -> object:
    try:
        return rows.value_at(row, name)
    except KeyError:
        raise ValueError(
            f"{place}: no field {name!r}; it has {', '.join(map(repr, row)) or 'none'}: name the right one "
            "in the configuration"
        ) from None


def _text(value: object, name: str, place: str) -> str:
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else ""
    )
    if not text.strip():
        raise ValueError(f"{place}: field {name!r} is {value!r}, not a text or number")
    if any("\ud800" <= c <= "\udfff" for c in text) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise ValueError(
            f"{place}: field {name!r} is {value!r}, which no text file can hold or no answer can be; mend "
            "the row"
        )
    return text
