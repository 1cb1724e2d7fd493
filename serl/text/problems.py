"""Reading a user's problems: every fault is a sentence with file, line, field and remedy, before any model is
loaded.
"""

import difflib
import gzip
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serl.config.base import Corpus
from serl.stages.sources import GeneratedProblems, HubProblems, JsonlProblems, Problems

if TYPE_CHECKING:
    from serl.records import Problem  # needs pyarrow, which completion and plans do without

GENERATED_BENCHMARKS = ("arithmetic.jsonl", "arithmetic_choice.jsonl", "arithmetic_validation.jsonl")
CORPUS_FILES = {"seeds": "seeds.jsonl", "problems": "problems.jsonl"}


def generated_rows(corpus: Corpus) -> dict[str, int]:
    """How many problems the corpus stage writes for each generated benchmark."""
    return dict(
        zip(
            GENERATED_BENCHMARKS,
            (corpus.test_problems, corpus.choice_problems, corpus.validation_problems),
            strict=True,
        )
    )


def load_problems(
    source: JsonlProblems | HubProblems | GeneratedProblems, *, data_root: Path, corpus: Path
) -> "list[Problem]":
    """The problems of `source`; `corpus` is where round 0's corpus stage publishes."""
    match source:
        case JsonlProblems():
            path = Path(source.path) if Path(source.path).is_absolute() else data_root / "seeds" / source.path
            return _problems(_lines(path), source.question, source.gold, str(path))
        case GeneratedProblems():
            path = corpus / CORPUS_FILES[source.part]
            return _problems(_lines(path), "question", "answer", str(path))
        case HubProblems():
            return _problems(_dataset(source), source.question, source.gold, f"dataset {source.name}")


def check_source(source: Problems | None, data_root: Path, wanted: Mapping[str, int]) -> None:
    """Raises ValueError where problems from outside the run cannot be read, or are fewer than a key
    (`wanted`) asks for.
    """
    if source is None or isinstance(source, GeneratedProblems):
        return
    there = len(load_problems(source, data_root=data_root, corpus=data_root))
    for key, number in wanted.items():
        if number > there:
            raise ValueError(
                f"{key} {number}: the configured source has {there} seed problems; ask for fewer, or give "
                "more"
            )


def source_files(source: Problems | None, data_root: Path) -> dict[str, Path]:
    """The files and folders that a source is read from; of the hub, or of the run's own world, there are
    none.
    """
    match source:
        case JsonlProblems():
            path = Path(source.path)
            return {source.path: path if path.is_absolute() else data_root / "seeds" / path}
        case HubProblems() if Path(source.name).is_dir():
            return {source.name: Path(source.name)}
        case _:
            return {}


def fingerprint(problems: Iterable[object]) -> str:
    """Tells whether two stages saw the same problems: a source outside the run may be edited while the run
    goes on.
    """
    from serl.records import to_jsonl

    return hashlib.sha256(to_jsonl(problems)).hexdigest()[:16]


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    """(place, JSON value) of every line that is not blank."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            path.name, os.listdir(path.parent) if path.parent.is_dir() else [], n=3
        )
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "put it there or change the path in the configuration"
        )
        raise ValueError(f"{path}: no such file; {hint}") from None
    except (OSError, EOFError, zlib.error) as e:
        raise ValueError(f"{path}: cannot be read ({e}); a name in .gz must be a gzip file") from e
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not UTF-8 text ({e}); convert it") from e
    for number, line in enumerate(
        text.split("\n"), 1
    ):  # not splitlines: JSON strings may hold U+2028 and its like
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as e:
                raise ValueError(
                    f"{path}:{number}: not a JSON object ({e}); write one object per line"
                ) from e


def _dataset(source: HubProblems) -> Iterator[tuple[str, object]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(source.name, split=source.split)
    except (OSError, ValueError, RuntimeError) as e:
        raise ValueError(
            f"dataset {source.name!r}, split {source.split!r}: cannot be loaded ({e}); give a local "
            "folder, or a jsonl file"
        ) from e
    for number, row in enumerate(rows, 1):
        yield f"dataset {source.name} row {number}", row


def _problems(
    rows: Iterable[tuple[str, object]], question: str, gold: str | None, source: str
) -> "list[Problem]":
    from serl.records import Problem

    problems = []
    for place, row in rows:
        if not isinstance(row, dict):
            # The user's data is wrong, not a caller's type.
            raise ValueError(  # noqa: TRY004
                f"{place}: {type(row).__name__}, not a JSON object; write one object per line"
            )
        problems.append(
            Problem(
                id=f"{len(problems):06d}",
                question=_field(row, question, place),
                gold=_field(row, gold, place) if gold else None,
            )
        )
    if not problems:
        raise ValueError(f"{source}: empty; give at least one problem")
    return problems


def _field(row: dict, name: str, place: str) -> str:
    if name not in row:
        raise ValueError(
            f"{place}: no field {name!r}; it has {', '.join(map(repr, row)) or 'none'}: name the right one "
            "in the configuration"
        )
    value = row[name]
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
