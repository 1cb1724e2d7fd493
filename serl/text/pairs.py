"""Reading what people wrote to be learned from: pairs of answers, or single ones. Every fault is a sentence
with file, line, field and remedy.
"""

from dataclasses import dataclass
from pathlib import Path

from serl.stages.sources import HubPairs, HubTexts, JsonlPairs, JsonlTexts
from serl.text.problems import source_rows, text_field


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPair:
    """A question and two answers to it, the better one first."""

    id: str
    question: str
    better: str
    worse: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A question and an answer to it."""

    id: str
    question: str
    answer: str


def load_pairs(source: JsonlPairs | HubPairs, data_root: Path) -> list[TextPair]:
    """All pairs of a source, in its order."""
    rows = enumerate(source_rows(source, data_root))
    return _some([_pair(f"{number:06d}", row, place, source) for number, (place, row) in rows], source)


def load_texts(source: JsonlTexts | HubTexts, data_root: Path) -> list[Text]:
    """All answers of a source, in its order."""
    found = []
    for number, (place, row) in enumerate(source_rows(source, data_root)):
        question, answer = (text_field(row, key, place) for key in (source.question, source.answer))
        found.append(Text(id=f"{number:06d}", question=question, answer=answer))
    return _some(found, source)


def _some(found: list, source: JsonlPairs | HubPairs | JsonlTexts | HubTexts) -> list:
    if not found:
        name = source.path if isinstance(source, JsonlPairs | JsonlTexts) else f"dataset {source.name}"
        raise ValueError(f"{name}: empty; give at least one row")
    return found


def _pair(id: str, row: object, place: str, source: JsonlPairs | HubPairs) -> TextPair:
    question, *sides = (text_field(row, key, place) for key in (source.question, source.better, source.worse))
    if sides[0] == sides[1]:
        raise ValueError(
            f"{place}: fields {source.better!r} and {source.worse!r} are equal: neither is the better one; "
            "leave the row out"
        )
    label = text_field(row, source.label, place) if source.label else "1"
    if label not in ("0", "1"):
        raise ValueError(
            f"{place}: field {source.label!r} is {label}: 1 says that {source.better!r} is better, 0 that "
            f"{source.worse!r} is; mend the row"
        )
    better, worse = sides if label == "1" else sides[::-1]
    return TextPair(id=id, question=question, better=better, worse=worse)
