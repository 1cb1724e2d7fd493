"""The MMLU-Pro protocol: its five-shot prompt and its three-step letter extraction, the latter in linear
time.

No letter means no letter: reading never guesses. `official` reproduces the published number, which does, for
comparison only.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from evaluation.benchmark import Problem

STOP = "Question:"
GROUPS = {
    "STEM": ("biology", "chemistry", "computer science", "engineering", "math", "physics"),
    "Humanities": ("history", "law", "philosophy"),
    "Social": ("business", "economics", "health", "psychology"),
    "Other": ("other",),
}
"""The grouping of the published SeRL results; each group is weighted by its number of questions."""

_INSTRUCTION = (
    "The following are multiple choice questions (with answers) about {subject}. Think step by step and "
    "then finish your answer "
    'with "the answer is (X)" where X is the correct letter choice.\n\n\n\n'
)
_THINK = "Let's think step by step."
_ANSWER_IS = re.compile(r"answer is \(?([A-J])\)?")
_ANSWER_COLON = re.compile(r"(?=[aA]nswer:\s*([A-J]))")
_ALONE = re.compile(r"\b[A-J]\b")


def choice_prompt(problem: Problem, shots: Sequence[Problem], subject: str) -> str:
    """The official chain-of-thought prompt: worked examples, then the question, ending where the model goes
    on.
    """
    parts = [_INSTRUCTION.format(subject=subject)]
    for shot in shots:
        reasoning = shot.reasoning.removeprefix("A: ").strip() or f"{_THINK} The answer is ({shot.gold})."
        parts.append(f"{_asked(shot)}Answer: {reasoning}\n\n")
    return "".join([*parts, _asked(problem), f"Answer: {_THINK}"])


def extract_letter(response: str, num_choices: int) -> str | None:
    """The chosen letter: the first "answer is (X)", else the last "Answer: X" of the first line with one,
    else the last capital letter A to J that stands alone. A letter beyond the choices is no answer.
    """
    letter = _answer_is(response) or _answer_colon(response) or _last_alone(response)
    return letter if letter in tuple(ascii_uppercase[:num_choices]) else None


def announces(response: str) -> bool:
    """Whether the letter was found behind an announcement, and not as the last one that stands alone."""
    return (_answer_is(response) or _answer_colon(response)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A greedy response to a question of a category."""

    category: str
    response: str
    num_choices: int
    gold: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Official:
    """The published protocol's numbers: per category, per group and overall; `num_guessed` answers were drawn
    at random.
    """

    overall: float
    groups: Mapping[str, float]
    categories: Mapping[str, float]
    num_guessed: int


def official(rows: Iterable[Row]) -> Official:
    """Accuracy with a random guess for each response without a letter, from the official generator.

    One generator, seeded with 12345, goes through the categories by name and their questions in the file's
    order; as the official script writes each category's result twice, each guess is drawn twice and the
    second counts. Letters beyond the choices are answers there, and wrong. Groups weigh category accuracies,
    rounded to four digits, by their numbers of questions.
    """
    categories: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        categories[row.category].append(row)
    generator = random.Random(12345)
    accuracy, num_guessed = {}, 0
    for name in sorted(categories):
        letters = [extract_letter(row.response, 10) for row in categories[name]]
        num_guessed += letters.count(None)
        for _ in range(2):
            right = [
                _right(row, letter, generator) for row, letter in zip(categories[name], letters, strict=True)
            ]
        accuracy[name] = sum(right) / len(right)
    counts = {name: len(found) for name, found in categories.items()}
    groups = {
        group: _weighed(accuracy, counts, members)
        for group, members in GROUPS.items()
        if any(m in counts for m in members)
    }
    return Official(
        overall=_weighed(accuracy, counts, counts),
        groups=groups,
        categories=accuracy,
        num_guessed=num_guessed,
    )


def _right(row: Row, letter: str | None, generator: random.Random) -> bool:
    return (
        ascii_uppercase[generator.randint(0, row.num_choices - 1)] if letter is None else letter
    ) == row.gold


def _weighed(accuracy: Mapping[str, float], counts: Mapping[str, int], members: Iterable[str]) -> float:
    present = [name for name in members if name in counts]
    return sum(round(accuracy[name], 4) * counts[name] for name in present) / sum(
        counts[name] for name in present
    )


def _answer_is(response: str) -> str | None:
    found = _ANSWER_IS.search(response)
    return found[1] if found else None


def _answer_colon(response: str) -> str | None:
    """What `.*[aA]nswer:\\s*([A-J])` finds, whose `.*` prefers the last match that begins on the first line
    that has one.
    """
    letter, end = None, -1
    for found in _ANSWER_COLON.finditer(response):
        if letter is not None and found.start() > end:
            break
        if letter is None:
            newline = response.find("\n", found.start())
            end = len(response) if newline < 0 else newline
        letter = found[1]
    return letter


def _last_alone(response: str) -> str | None:
    letter = None
    for found in _ALONE.finditer(response):
        letter = found[0]
    return letter


def _asked(problem: Problem) -> str:
    options = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(ascii_uppercase, problem.choices, strict=False)
    )
    return f"Question:\n{problem.question}\nOptions:\n{options}"
