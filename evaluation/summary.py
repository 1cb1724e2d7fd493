"""From grades to scores: each benchmark's metrics, counts of verdicts, parts and curve."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.answers import LEVELS, Level
from evaluation.mmlu_pro import GROUPS
from evaluation.scores import Score, avg_at_k, count_verdicts, maj_at_k, pass_at_1, pass_at_k, score
from evaluation.stored import Grade, Mode
from evaluation.thinking import spoken
from evaluation.worker import Verdict

Part = Literal["subject", "level", "group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """How many answers were read at a level, and how many of those were right."""

    answers: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoughts:
    """How many responses have thoughts, how many of these never end, and the share of the text that is
    thought; its tokens, where the tokens of responses are known.
    """

    responses: int = 0
    unfinished: int = 0
    share: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The metrics of a benchmark, and how many responses of each mode got each verdict.

    `parts` splits the first metric: by `subject`, by `level`, and by `group` where the subjects are
    MMLU-Pro's; a group's mean weighs its categories by their numbers of questions. `curve[k]` is pass@k for k
    = 1, 2, 4 .. as far as there are samples.
    """

    metrics: dict[str, Score]
    counts: dict[Mode, dict[Verdict, int]]
    parts: dict[Part, dict[str, Score]] = dataclasses.field(default_factory=dict)
    curve: dict[int, Score] = dataclasses.field(default_factory=dict)
    readings: dict[Level, Readings] = dataclasses.field(default_factory=dict)
    thoughts: Thoughts = Thoughts()


def summarise(grades: Sequence[Grade]) -> dict[str, Summary]:
    """The scores of each benchmark: pass_at_1 from greedy responses; avg, pass and maj at k from samples."""
    benchmarks: dict[str, list[Grade]] = defaultdict(list)
    for row in grades:
        benchmarks[row.benchmark].append(row)
    return {name: _summary(rows) for name, rows in benchmarks.items()}


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
    return Summary(
        metrics=metrics,
        counts=counts,
        parts=_parts(greedy or rows),
        curve=_curve(samples),
        readings=_readings(greedy or rows),
        thoughts=_thoughts(rows),
    )


def _readings(rows: Sequence[Grade]) -> dict[Level, Readings]:
    """How the answers were read, the plainest level first; levels without an answer are left out."""
    found = {level: [row.verdict == "correct" for row in rows if row.reading == level] for level in LEVELS}
    return {level: Readings(answers=len(right), right=sum(right)) for level, right in found.items() if right}


def _thoughts(rows: Sequence[Grade]) -> Thoughts:
    heard = [(row, *_heard(row)) for row in rows]
    thought = [(row, chars, unfinished) for row, chars, unfinished in heard if chars]
    num_chars = sum(len(row.response) for row in rows)
    return Thoughts(
        responses=len(thought),
        unfinished=sum(unfinished for _, _, unfinished in thought),
        share=sum(chars for _, chars, _ in thought) / num_chars if num_chars else 0.0,
        tokens=round(sum(row.tokens * chars / len(row.response) for row, chars, _ in thought)),
    )


def _heard(row: Grade) -> tuple[int, bool]:
    """How many characters are thought, and whether that never ends; of rows from before this was stored by
    the usual delimiters.
    """
    if row.thought_chars is not None:
        return row.thought_chars, row.unfinished
    said = spoken(row.response)
    return said.thought_chars, said.unfinished


def _curve(samples: Mapping[str, Sequence[Grade]]) -> dict[int, Score]:
    """Unbiased pass@k for every power of two that each problem has samples for."""
    counts = [
        (len(members), sum(row.verdict == "correct" for row in members)) for members in samples.values()
    ]
    fewest = min((n for n, _ in counts), default=0)
    return {
        k: score([pass_at_k(n, c, k) for n, c in counts])
        for k in (2**i for i in range(fewest.bit_length()))
        if k <= fewest
    }


def _parts(rows: Sequence[Grade]) -> dict[Part, dict[str, Score]]:
    group_of = {subject: group for group, subjects in GROUPS.items() for subject in subjects}
    keys: dict[Part, Callable[[Grade], str]] = {
        "subject": lambda row: row.subject,
        "level": lambda row: row.level,
    }
    if rows and all(row.kind == "choice" and row.subject in group_of for row in rows):
        keys["group"] = lambda row: group_of[row.subject]
    parts: dict[Part, dict[str, Score]] = {}
    for part, key in keys.items():
        values: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            values[key(row)][row.id].append(row.verdict == "correct")
        if set(values) - {""}:
            parts[part] = {
                name: avg_at_k(list(problems.values())) for name, problems in sorted(values.items())
            }
    return parts


def _majority(samples: Sequence[Grade]) -> float:
    """Whether the majority answer is correct; a class is as its members are, by their own majority."""
    members: dict[int, list[bool]] = defaultdict(list)
    for row in samples:
        if row.label is not None:
            members[row.label].append(row.verdict == "correct")
    return maj_at_k(
        [row.label for row in samples],
        {label: 2 * sum(right) > len(right) for label, right in members.items()},
    )
