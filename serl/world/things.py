"""The toy domain of multiple choice: which of four things is of a kind, like a fruit or a tool.

A language model trained on `corpus` knows two ways to answer: `guess`, which names a letter at once and is
right as often as chance, and `steps`, which says of one option after another what it is until one fits, and
is mostly right. It does not know which to trust; that is what self-play has to find out. A tenth of the
questions (see `held_out`) occurs in no document, seed or labelled training problem.

Everything is a function of its seed.
"""

import random
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal

from evaluation.choices import listed
from serl.world.draws import distinct, first

KINDS = {
    "fruit": "apple pear plum peach cherry lemon grape mango melon fig",
    "tool": "hammer saw drill wrench chisel pliers shovel rake axe file",
    "animal": "dog cat horse cow sheep goat mouse rabbit fox bear",
    "colour": "red blue green yellow brown pink black white purple grey",
    "drink": "tea coffee milk juice water cocoa cider soda wine beer",
    "garment": "shirt sock coat hat scarf glove skirt belt shoe jacket",
    "vehicle": "car bus train truck tram ship plane bicycle van boat",
    "instrument": "piano violin flute drum harp guitar horn cello organ banjo",
}
MEMBERS = {kind: tuple(words.split()) for kind, words in KINDS.items()}
KIND_OF = {word: kind for kind, words in MEMBERS.items() for word in words}
STEMS = ("Which of these is a {k}?", "Which one is a kind of {k}?", "Find the {k}.", "Which is the {k} here?")
NUM_OPTIONS = 4

ANSWER_PROMPT = "Question: {question}\nAnswer:"
LIST_PROMPT = "Come up with a series of questions:\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with four options, exactly one of the kind that is asked for."""

    stem: str
    kind: str
    options: tuple[str, ...]

    @property
    def question(self) -> str:
        """As it is asked: the options below it."""
        return listed(self.stem, self.options)

    @property
    def gold(self) -> str:
        """The letter of the right option."""
        return next(
            letter
            for letter, option in zip(ascii_uppercase, self.options, strict=False)
            if KIND_OF[option] == self.kind
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One training text: prompt, then completion; the reader of it adds begin- and end-of-text tokens."""

    prompt: str
    completion: str
    kind: Literal["guess", "steps", "list"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What the corpus is made of: the share of lists of questions, and of the answers that are guesses."""

    lists: float = 0.08
    guesses: float = 0.55
    list_lengths: tuple[int, int] = (4, 6)


def make_problem(rng: random.Random) -> Problem:
    """A random problem, with every letter right equally often."""
    kind, *others = rng.sample(list(MEMBERS), NUM_OPTIONS)
    options = [rng.choice(MEMBERS[other]) for other in others]
    options.insert(rng.randrange(NUM_OPTIONS), rng.choice(MEMBERS[kind]))
    return Problem(stem=rng.choice(STEMS).format(k=kind), kind=kind, options=tuple(options))


def held_out(problem: Problem) -> bool:
    """Whether the four things belong to the tenth that only tests may use; order and wording play no part."""
    return zlib.crc32(" ".join(sorted(problem.options)).encode()) % 10 == 0


def steps(problem: Problem) -> str:
    """The worked answer: option by option, until one fits; starts with a space."""
    end = ascii_uppercase.index(problem.gold) + 1
    looked = zip(ascii_uppercase, problem.options[:end], strict=False)
    seen = [f"{letter}. {option}, {KIND_OF[option]}" for letter, option in looked]
    said = " ".join(f"{problem.kind}? {what}: no." for what in seen[:-1])
    return f" {said} {problem.kind}? {seen[-1]}: yes. The answer is ({problem.gold}).".replace("  ", " ")


def guess(letter: str) -> str:
    """An answer at a glance; starts with a space."""
    return f" The answer is ({letter})."


def corpus(seed: int, num_documents: int, mix: Mix = Mix()) -> list[Document]:
    """The base model's training texts; no held-out question occurs in them."""
    rng = random.Random(f"things {seed}")
    return [_document(rng, mix) for _ in range(num_documents)]


def _document(rng: random.Random, mix: Mix) -> Document:
    if rng.random() < mix.lists:
        count = rng.randint(*mix.list_lengths)
        questions = [first(make_problem, rng, _allowed).question for _ in range(count)]
        lines = (" ".join(question.split()) for question in questions)
        text = "".join(f"{i}. {line}\n" for i, line in enumerate(lines, start=1))
        return Document(prompt=LIST_PROMPT, completion=text, kind="list")
    problem = first(make_problem, rng, _allowed)
    prompt = ANSWER_PROMPT.format(question=problem.question)
    if rng.random() < mix.guesses:
        letter = rng.choice(ascii_uppercase[:NUM_OPTIONS])
        return Document(prompt=prompt, completion=guess(letter), kind="guess")
    return Document(prompt=prompt, completion=steps(problem), kind="steps")


def _allowed(problem: Problem) -> bool:
    return not held_out(problem)


def seed_problems(seed: int, count: int) -> list[Problem]:
    """The few problems of the domain that a run starts from; their answers are not used by self-play."""
    return distinct(make_problem, random.Random(f"seeds of things {seed}"), count, _allowed)


def train_problems(seed: int, count: int) -> list[Problem]:
    """Labelled problems for the ground-truth control."""
    return distinct(make_problem, random.Random(f"labelled things {seed}"), count, _allowed)


def unseen_problems(name: str, count: int, *, apart: Collection[str] = ()) -> list[Problem]:
    """Held-out problems, the same for every run, none of them among the questions `apart`."""
    rng = random.Random(f"things {name}")
    return distinct(make_problem, rng, count, lambda p: held_out(p) and p.question not in apart)
