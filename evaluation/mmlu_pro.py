"""The MMLU-Pro protocol: its five-shot prompt and its three-step letter extraction, the latter in linear time.

No letter means no letter: this module never guesses. A random guess for those is a matter of scoring, not of reading.
"""

import re
from collections.abc import Sequence
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
    "The following are multiple choice questions (with answers) about {subject}. Think step by step and then finish your answer "
    'with "the answer is (X)" where X is the correct letter choice.\n\n\n\n'
)
_THINK = "Let's think step by step."
_ANSWER_IS = re.compile(r"answer is \(?([A-J])\)?")
_ANSWER_COLON = re.compile(r"(?=[aA]nswer:\s*([A-J]))")
_ALONE = re.compile(r"\b[A-J]\b")


def choice_prompt(problem: Problem, shots: Sequence[Problem], subject: str) -> str:
    """The official chain-of-thought prompt: worked examples, then the question, ending where the model goes on."""
    parts = [_INSTRUCTION.format(subject=subject)]
    for shot in shots:
        reasoning = shot.reasoning.removeprefix("A: ").strip() or f"{_THINK} The answer is ({shot.gold})."
        parts.append(f"{_asked(shot)}Answer: {reasoning}\n\n")
    return "".join([*parts, _asked(problem), f"Answer: {_THINK}"])


def extract_letter(response: str, num_choices: int) -> str | None:
    """The chosen letter: the first "answer is (X)", else the last "Answer: X" of the first line with one, else the last
    capital letter A to J that stands alone. A letter beyond the choices is no answer."""
    letter = _answer_is(response) or _answer_colon(response) or _last_alone(response)
    return letter if letter in tuple(ascii_uppercase[:num_choices]) else None


def _answer_is(response: str) -> str | None:
    found = _ANSWER_IS.search(response)
    return found[1] if found else None


def _answer_colon(response: str) -> str | None:
    """What `.*[aA]nswer:\\s*([A-J])` finds, whose `.*` prefers the last match that begins on the first line that has one."""
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
    options = "".join(f"{letter}. {choice}\n" for letter, choice in zip(ascii_uppercase, problem.choices, strict=False))
    return f"Question:\n{problem.question}\nOptions:\n{options}"
