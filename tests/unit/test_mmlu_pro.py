"""The MMLU-Pro protocol against its published regular expressions and prompt."""

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.benchmark import Problem
from evaluation.mmlu_pro import choice_prompt, extract_letter


def published(text):
    """The three steps as published (the last two are quadratic)."""
    for pattern in (r"answer is \(?([A-J])\)?", r".*[aA]nswer:\s*([A-J])", r"(?s)\b([A-J])\b(?!.*\b[A-J]\b)"):
        found = re.search(pattern, text)
        if found:
            return found[1]
    return None


PIECES = [
    "answer is ",
    "answer is (",
    "Answer: ",
    "answer:",
    "A",
    "B",
    "C",
    "J",
    "K",
    "I ",
    ") ",
    "\n",
    " ",
    "word ",
    "Answer:\n",
    ".",
    "é",
    "_A_",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_extraction_finds_what_the_published_expressions_find(text):
    assert extract_letter(text, 10) == published(text)


@pytest.mark.parametrize(
    ("text", "num_choices", "letter"),
    [
        ("The answer is (C).", 4, "C"),
        ("the answer is C", 4, "C"),
        ("Answer: B\nor Answer: C", 4, "B"),
        ("Answer: Answer: B", 4, "B"),
        ("it must be D", 4, "D"),
        ("The answer is (J).", 4, None),
        ("nothing here", 4, None),
        ("", 4, None),
    ],
)
def test_letters_beyond_the_choices_are_no_answer(text, num_choices, letter):
    assert extract_letter(text, num_choices) == letter


@pytest.mark.parametrize("piece", ["Answer: ", "answer is (", "A ", "Answer:\n", " ", "x"])
def test_extraction_is_linear(piece):
    start = time.process_time()
    extract_letter((piece * 1_000_000)[:1_000_000], 10)
    assert time.process_time() - start < 5


def test_the_prompt_has_the_official_text():
    shot = Problem(
        benchmark="m",
        id="0",
        question="1+1?",
        gold="B",
        kind="choice",
        choices=("1", "2"),
        reasoning="A: Let's think step by step. Two. The answer is (B).",
    )
    problem = Problem(benchmark="m", id="1", question="2+2?", gold="A", kind="choice", choices=("4", "5"))
    head = (
        "The following are multiple choice questions (with answers) about math. Think step by step and then finish your answer with "
        '"the answer is (X)" where X is the correct letter choice.\n\n\n\n'
    )
    example = "Question:\n1+1?\nOptions:\nA. 1\nB. 2\nAnswer: Let's think step by step. Two. The answer is (B).\n\n"
    question = "Question:\n2+2?\nOptions:\nA. 4\nB. 5\nAnswer: Let's think step by step."
    assert choice_prompt(problem, [shot], "math") == head + example + question
    assert choice_prompt(problem, [], "math") == head + question


def test_a_worked_example_without_reasoning_still_names_its_letter():
    shot = Problem(benchmark="m", id="0", question="?", gold="B", kind="choice", choices=("1", "2"))
    assert "The answer is (B)." in choice_prompt(shot, [shot] * random.Random(0).randrange(1, 3), "math")
