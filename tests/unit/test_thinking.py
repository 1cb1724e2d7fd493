"""What a model thinks is no answer: nothing between thinking delimiters is read."""

import pytest

from evaluation.answers import extract, read
from evaluation.benchmark import Problem
from evaluation.grade import Rules, grade
from evaluation.letters import read_letter
from evaluation.summary import summarise
from evaluation.thinking import spoken, thought_counts
from evaluation.verifier import Verifier


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


def test_thoughts_are_counted_apart_in_responses_and_tokens():
    said = [("<think>abcd</think>x", 10), ("abc", 5), ("<think>never", 4)]
    found = thought_counts(said)
    assert (found["thoughts"], found["unfinished_thoughts"]) == (2, 1)
    assert found["thought_tokens"] == round(10 * 19 / 20 + 4) and found["tokens"] == 19
    assert thought_counts([("<think>a</think>", 3)], ()) == {} == thought_counts([])
    own = thought_counts([("<<a>>b", 6)], (("<<", ">>"),))
    assert (own["thoughts"], own["thought_tokens"]) == (1, 5)


def test_scores_count_thoughts_by_the_runs_own_delimiters():
    problem = Problem(benchmark="b", id="1", question="?", gold="7", kind="math")
    response = {"benchmark": "b", "id": "1", "sample": 0, "mode": "greedy", "finish_reason": "stop", "tokens": 12}
    response["response"] = r"<<maybe \boxed{5}>> \boxed{7}"
    with Verifier() as verifier:
        (row,) = grade([problem], [response], verifier, Rules(thinking=(("<<", ">>"),)))
        assert (row.extracted, row.verdict, row.thought_chars, row.tokens) == ("7", "correct", 19, 12)
        thoughts = summarise([row])["b"].thoughts
        assert (thoughts.responses, thoughts.unfinished) == (1, 0)
        assert thoughts.share == 19 / 29 and thoughts.tokens == round(12 * 19 / 29)
        (plain,) = grade([problem], [response], verifier)
        assert summarise([plain])["b"].thoughts.responses == 0
