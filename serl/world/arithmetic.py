"""The quickstart's toy domain: small-number arithmetic, written out as expressions and as stories of one to
four steps.

A language model trained on `corpus` knows two ways to answer: `direct`, which states the value and is mostly
wrong for a small model, and `steps`, which works it out and is mostly right. It does not know which to trust;
that is what self-play has to find out. A tenth of the numeric chains (start and operations, see `held_out`)
occurs in no document, seed or labelled training problem, so the test problems ask for arithmetic that was
never shown.

Everything is a function of its seed. `serl.world.solver` reads questions back.
"""

import random
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from evaluation import benchmark, mmlu_pro
from serl.world.draws import distinct, first

Operator = Literal["+", "-", "*"]
Style = Literal["direct", "steps"]
Kind = Literal["expression", "story"]

NAMES = (
    "Tom",
    "Anna",
    "Ben",
    "Mia",
    "Sam",
    "Lily",
    "Max",
    "Zoe",
    "Leo",
    "Eva",
    "Jack",
    "Nina",
    "Paul",
    "Rosa",
    "Adam",
    "Kate",
)
THINGS = (
    "apples",
    "pens",
    "books",
    "coins",
    "cards",
    "stamps",
    "shells",
    "marbles",
    "cookies",
    "stickers",
    "beads",
    "cups",
)
PLACES = ("box", "bag", "jar", "crate", "basket", "drawer")

EXPRESSIONS = ("What is {e}?", "Compute {e}.", "Evaluate {e}.", "Find the value of {e}.")
STARTS = (
    "{n} has {a} {t}.",
    "There are {a} {t} in a {p}.",
    "A {p} holds {a} {t}.",
    "{n} starts with {a} {t}.",
    "{n} and {m} share {a} {t}.",
    "{n} found {a} {t}.",
)
CHANGES: dict[Operator, tuple[str, ...]] = {
    "+": (
        "{n} buys {b} more.",
        "{n} adds {b}.",
        "Then {b} more arrive.",
        "{n} finds another {b}.",
        "{n} brings {b} {t}.",
    ),
    "-": (
        "{n} loses {b}.",
        "{n} takes away {b}.",
        "Then {b} are sold.",
        "{n} breaks {b} of them.",
        "{n} gives away {b} {t}.",
    ),
    "*": (
        "Then the number grows {b} times.",
        "{n} makes it {b} times as many.",
        "Soon there are {b} times as many.",
    ),
}
ENDINGS = (
    "How many {t} are there now?",
    "How many {t} are left?",
    "What is the number of {t}?",
    "How many {t} is that?",
)

ANSWER_PROMPT = "Question: {question}\nAnswer:"
LIST_PROMPT = "Come up with a series of questions:\n"
SUBJECT = "arithmetic"
LETTERS = "ABCD"

EXPRESSION_SHARE = 0.45
STEP_WEIGHTS = (0.15, 0.4, 0.3, 0.15)
MAX_START = 15
MAX_BEFORE_PLUS = 30
MAX_BEFORE_TIMES = 12
MAX_OPERAND = 6
MAX_FACTOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question and the numeric chain behind it."""

    question: str
    start: int
    operations: tuple[tuple[Operator, int], ...]
    kind: Kind

    @property
    def gold(self) -> int:
        """The right answer."""
        return values(self.start, self.operations)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A problem with four options, exactly one of them right."""

    problem: Problem
    options: tuple[str, ...]
    gold: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One training text: prompt, then completion; the reader of it adds begin- and end-of-text tokens."""

    prompt: str
    completion: str
    kind: Literal["direct", "steps", "list", "choice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What the corpus is made of. `direct_*` is the share of answers in the style that mostly fails: it sets
    how good the base is before any learning.
    """

    lists: float = 0.08
    choices: float = 0.04
    direct_story: float = 0.35
    direct_expression: float = 0.65
    list_lengths: tuple[int, int] = (6, 9)


def apply(value: int, operator: Operator, operand: int) -> int:
    """One step of arithmetic."""
    match operator:
        case "+":
            return value + operand
        case "-":
            return value - operand
        case "*":
            return value * operand


def values(start: int, operations: tuple[tuple[Operator, int], ...]) -> list[int]:
    """The start and the value after every operation, left to right."""
    reached = [start]
    for operator, operand in operations:
        reached.append(apply(reached[-1], operator, operand))
    return reached


def held_out(problem: Problem) -> bool:
    """Whether the numeric chain belongs to the tenth that only tests may use; the wording plays no part."""
    chain = f"{problem.start}" + "".join(f" {operator} {operand}" for operator, operand in problem.operations)
    return zlib.crc32(chain.encode()) % 10 == 0


def make_problem(rng: random.Random) -> Problem:
    """A random problem whose values all lie between 1 and 99. Stories multiply at most once, as stories
    do.
    """
    expression = rng.random() < EXPRESSION_SHARE
    num_steps = rng.choices((1, 2, 3, 4), STEP_WEIGHTS)[0]
    while True:
        start, operations = _chain(rng, num_steps)
        if expression or sum(operator == "*" for operator, _ in operations) <= 1:
            break
    question = (
        rng.choice(EXPRESSIONS).format(e=_expression(start, operations))
        if expression
        else _story(rng, start, operations)
    )
    return Problem(
        question=question, start=start, operations=operations, kind="expression" if expression else "story"
    )


def fitting_operators(value: int) -> list[Operator]:
    """What may follow a value; sums are twice as likely as products."""
    linear: list[Operator] = [
        operator for operator, fits in (("+", value <= MAX_BEFORE_PLUS), ("-", value >= 4)) if fits
    ]
    return linear + linear + (["*"] if value <= MAX_BEFORE_TIMES else [])


def largest_operand(value: int, operator: Operator) -> int:
    """The largest operand that keeps the result between 1 and 99 and the step easy."""
    return {"+": MAX_OPERAND, "-": min(MAX_OPERAND, value - 1), "*": MAX_FACTOR}[operator]


def _chain(rng: random.Random, num_steps: int) -> tuple[int, tuple[tuple[Operator, int], ...]]:
    start = value = rng.randint(2, MAX_START)
    operations: list[tuple[Operator, int]] = []
    for _ in range(num_steps):
        operator = rng.choice(fitting_operators(value))
        operand = rng.randint(2, largest_operand(value, operator))
        value = apply(value, operator, operand)
        operations.append((operator, operand))
    return start, tuple(operations)


def _expression(start: int, operations: tuple[tuple[Operator, int], ...]) -> str:
    """Infix text that means the left-to-right chain: parentheses wherever a product follows a sum."""
    text, has_sum = str(start), False
    for operator, operand in operations:
        if operator == "*" and has_sum:
            text, has_sum = f"({text})", False
        text = f"{text} {operator} {operand}"
        has_sum = has_sum or operator != "*"
    return text


def _story(rng: random.Random, start: int, operations: tuple[tuple[Operator, int], ...]) -> str:
    first, second = rng.sample(NAMES, 2)
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    sentences = [rng.choice(STARTS).format(n=first, m=second, a=start, t=thing, p=place)]
    for operator, operand in operations:
        sentences.append(
            rng.choice(CHANGES[operator]).format(n=rng.choice((first, second)), b=operand, t=thing)
        )
    return " ".join([*sentences, rng.choice(ENDINGS).format(t=thing)])


def _equations(problem: Problem) -> str:
    reached = values(problem.start, problem.operations)
    steps = zip(reached, problem.operations, reached[1:])
    return " ".join(
        f"{before} {operator} {operand} = {after}." for before, (operator, operand), after in steps
    )


def solution(problem: Problem, style: Style) -> str:
    """The answer to `ANSWER_PROMPT` in one of the two styles; starts with a space."""
    boxed = f"\\boxed{{{problem.gold}}}"
    return f" {boxed}" if style == "direct" else f" Step by step: {_equations(problem)} {boxed}"


def choice_solution(choice: Choice) -> str:
    """The worked answer to `choice_prompt`; starts with a space."""
    return f" {_equations(choice.problem)} The answer is ({choice.gold})."


def answer_prompt(question: str) -> str:
    """The plain prompt that asks one question."""
    return ANSWER_PROMPT.format(question=question)


def choice_prompt(choice: Choice) -> str:
    """The multiple-choice prompt of the MMLU-Pro protocol, without examples: exactly what the benchmark
    asks.
    """
    problem = benchmark.Problem(
        benchmark="",
        id="",
        question=choice.problem.question,
        gold=choice.gold,
        kind="choice",
        subject=SUBJECT,
        choices=choice.options,
    )
    return mmlu_pro.choice_prompt(problem, (), SUBJECT)


def numbered(questions: list[str]) -> str:
    """`1. first\\n2. second\\n...`: how question lists are written in the corpus and read back from the
    model.
    """
    return "".join(f"{i}. {question}\n" for i, question in enumerate(questions, start=1))


def make_choice(rng: random.Random, problem: Problem, gold: str) -> Choice:
    """Put the right value behind the letter `gold` and three near misses behind the others."""
    near = [problem.gold + offset for offset in range(-9, 10) if offset != 0 and problem.gold + offset > 0]
    options = [str(value) for value in rng.sample(near, len(LETTERS) - 1)]
    options.insert(LETTERS.index(gold), str(problem.gold))
    return Choice(problem=problem, options=tuple(options), gold=gold)


def corpus(seed: int, num_documents: int, mix: Mix = Mix()) -> list[Document]:
    """The base model's training texts; no held-out chain occurs in them."""
    rng = random.Random(f"corpus {seed}")
    return [_document(rng, mix) for _ in range(num_documents)]


def _document(rng: random.Random, mix: Mix) -> Document:
    draw = rng.random()
    if draw < mix.lists:
        count = rng.randint(*mix.list_lengths)
        questions = [first(make_problem, rng, _allowed).question for _ in range(count)]
        return Document(prompt=LIST_PROMPT, completion=numbered(questions), kind="list")
    problem = first(make_problem, rng, _allowed)
    if draw < mix.lists + mix.choices:
        choice = make_choice(rng, problem, rng.choice(LETTERS))
        return Document(prompt=choice_prompt(choice), completion=choice_solution(choice), kind="choice")
    direct_share = mix.direct_expression if problem.kind == "expression" else mix.direct_story
    style: Style = "direct" if rng.random() < direct_share else "steps"
    return Document(prompt=answer_prompt(problem.question), completion=solution(problem, style), kind=style)


def _allowed(problem: Problem) -> bool:
    return not held_out(problem)


def seed_problems(seed: int, count: int) -> list[Problem]:
    """The few problems of the domain that a run starts from; their answers are not used by self-play."""
    return distinct(make_problem, random.Random(f"seeds {seed}"), count, _allowed)


def train_problems(seed: int, count: int) -> list[Problem]:
    """Labelled problems for the ground-truth control: what self-play does without."""
    return distinct(make_problem, random.Random(f"labelled {seed}"), count, _allowed)


def test_problems(count: int) -> list[Problem]:
    """Held-out problems, the same for every run; a smaller count is a prefix of a larger one."""
    return distinct(make_problem, random.Random("held-out problems"), count, held_out)


test_problems.__test__ = False  # the name is right, and pytest must not collect it


def validation_problems(count: int, *, apart: Collection[str]) -> list[Problem]:
    """Held-out problems to choose rounds and settings by, none of them among the questions `apart`, which are
    those that are reported.
    """
    rng = random.Random("validation")
    return distinct(make_problem, rng, count, lambda p: held_out(p) and p.question not in apart)


def choice_problems(count: int) -> list[Choice]:
    """Held-out multiple-choice problems, the same for every run, with every letter right equally often."""
    rng = random.Random("choices")
    problems = distinct(make_problem, rng, count, held_out)
    letters = [LETTERS[i % len(LETTERS)] for i in range(count)]
    rng.shuffle(letters)
    return [make_choice(rng, problem, letter) for problem, letter in zip(problems, letters, strict=True)]
