"""What a model thinks is no answer: nothing between thinking delimiters is read."""

import pytest

from evaluation.answers import extract, read
from evaluation.letters import read_letter
from evaluation.thinking import spoken


@pytest.mark.parametrize(
    ("response", "text", "unfinished"),
    [
        ("<think>a</think>b", "b", False), ("a<think>b", "a", True), ("a</think>b", "b", False), ("a", "a", False), ("", "", False),
        ("<think>a</think>b<think>c</think>d", "bd", False), ("<think>a<think>b</think>c", "c", False), ("[THINK]a[/THINK]b", "b", False),
    ],
)  # fmt: skip
def test_thoughts_are_left_out(response, text, unfinished):
    found = spoken(response)
    assert (found.text, found.unfinished) == (text, unfinished) and found.thought_chars == len(
        response
    ) - len(text)


def test_an_answer_is_read_from_what_is_said_alone():
    assert extract(r"<think>\boxed{5} hmm, wait</think>" + "\nThe final answer is 7.") == "7"
    assert extract(r"The answer is 3? \boxed{3}</think>" + r" So \boxed{4}.") == "4"
    assert read(r"<think>the answer is 5, \boxed{5}") is None
    assert read_letter("<think>Perhaps the answer is (A).</think>The answer is (C).", 4).text == "C"


def test_a_run_may_name_delimiters_of_its_own_or_none():
    own = (("<<", ">>"),)
    assert read(r"<<\boxed{5}>> \boxed{6}", thinking=own).text == "6"
    assert read(r"<think>\boxed{5}", thinking=()).text == "5" and spoken("<think>a", ()).text == "<think>a"
