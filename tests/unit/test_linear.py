"""A looping policy must not stop a run: whatever it repeats, reading it takes time in proportion to its
length.

`SERL_FUZZ=10000` tries as many texts as that; `tests/bench/repetitive.py` also sends them through judging and
classes.
"""

import os
import time

import pytest

from evaluation.answers import LEVELS, read
from evaluation.forms import plain
from evaluation.letters import read_letter
from evaluation.normal import normalise
from evaluation.thinking import spoken
from evaluation.verifier import Verifier
from tests.bench.repetitive import judge, over, texts
from tests.bench.repetitive import read as read_all

COUNT = int(os.environ.get("SERL_FUZZ", "400"))


def test_repetitive_text_is_read_in_time_in_proportion_to_its_length():
    slow = [(used, text[:80]) for used, bound, text in over(read_all, texts(COUNT, 11)) if used > bound]
    assert not slow


def test_judging_repetitive_text_costs_the_caller_no_more_than_that_either():
    with Verifier(limit_s=0.2) as verifier:
        slow = [
            (used, text[:80])
            for used, bound, text in over(judge(verifier), texts(COUNT // 40, 12))
            if used > bound
        ]
    assert not slow


@pytest.mark.parametrize(
    "words",
    ["hours", "square", "feet per second", "cm^2", r"\text{ cm}", r"^\circ", "foot-pounds", r"\cdot\text{m}"],
)
def test_a_run_of_unit_words_takes_no_time(words):
    """`\\boxed{hours hours ... left}` with 24 words once took 54 seconds, and with 26 it never ended."""
    start = time.process_time()
    for num in (24, 26, 180):
        plain(normalise(f"{' '.join([words] * num)} left"[:1000]))
        plain(normalise(f"5 {' '.join([words] * num)} left"[:1000]))
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        "<answer>",
        "answer is correct ",
        "**C** ",
        "option C is ",
        r"\boxed{1} and ",
        "$1$ and ",
        "-1",
        "(C)",
    ],
)
def test_every_level_is_read_in_linear_time(piece):
    short, long = ((piece * 400_000)[:size] for size in (100_000, 400_000))
    times = []
    for text in (short, long):
        start = time.process_time()
        read(text, levels=LEVELS), read_letter(text, 4), spoken(text)
        times.append(time.process_time() - start)
    assert times[1] < 10 * times[0] + 0.2 and times[1] < 6
