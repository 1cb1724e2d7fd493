"""Responses and their grades, as a run stores them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from evaluation.answers import Level
from evaluation.benchmark import Kind
from evaluation.worker import Verdict

Mode = Literal["greedy", "sample"]
Letters = Literal["official", "native"]
"""How the letter of a `choice` problem is found: as MMLU-Pro's script does, or where something marks a letter
as the answer.
"""


class Response(TypedDict):
    """One answer of a model to a problem of a benchmark, as stored."""

    benchmark: str
    id: str
    sample: int
    mode: Mode
    response: str
    finish_reason: str
    tokens: NotRequired[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A response with its verdict; `label` is its class among the samples of its problem, None where it casts
    no vote.

    `choice` is the text of the right choice where the answer may be given as a letter or as that text.
    `domain` are the benchmark's `answers` as JSON where its kind does not say how answers are read; for a
    function that reads them `question` is kept.
    `tokens` the response has, `thought_chars` of its characters are thought (None: written before that was
    stored), `unfinished` is a thought that never ends.
    `reading` is how plainly the extracted answer was said to be the answer; rows of before it was stored have
    none. `letters` says whose rules found the letter.
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
    domain: str = ""
    question: str = ""
    subject: str = ""
    level: str = ""
    extracted: str | None = None
    verdict: Verdict = "unparsed"
    label: int | None = None
    reading: Level | Literal[""] = ""
    letters: Letters = "official"
    tokens: int = 0
    thought_chars: int | None = None
    unfinished: bool = False


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
    """The grades of each scored round of a run, and of what was published within it, as round_001@25; refuses
    files that differ from their manifest.
    """
    found = [path for end in ("", "@*") for path in run.glob(f"round_*/score{end}") if path.is_dir()]
    folders = {"".join((p.parent.name, *p.name.partition("@")[1:])): p for p in found} | _shared(run)
    if not folders:
        raise ValueError(f"{run}: no round has scores (round_*/score); nothing to grade")
    for round, folder in sorted(folders.items()):
        rows = []
        for manifest in sorted(folder.glob("shard_*.json")):
            rows.extend(_shard_rows(manifest))
        if rows:
            yield round, rows


def _shared(run: Path) -> dict[str, Path]:
    """Where a trial of a sweep has the scores that it shares with others, by round; its `run.json` names
    them.
    """
    try:
        keys = json.loads((run / "run.json").read_bytes()).get("shared", {})
    except FileNotFoundError:
        return {}
    return {
        f"round_{name[1:4]}": run.resolve().parent.parent / "shared" / key
        for name, key in keys.items()
        if name.endswith("-score")
    }


def _shard_rows(manifest: Path) -> list[Grade]:
    files = json.loads(manifest.read_text())["files"]
    rows: list[Grade] = []
    for file in files:
        path = manifest.parent / file["name"]
        if path.suffix != ".jsonl":
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            raise ValueError(
                f"{path}: its content differs from what {manifest.name} recorded; the shard must be made "
                "again"
            )
        rows.extend(read_rows(path))
    return rows
