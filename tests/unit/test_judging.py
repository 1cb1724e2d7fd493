"""How each domain's answers are read, sorted and judged."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import choices, words
from evaluation.domain import ChoiceAnswers, MathAnswers, NumberAnswers, PythonAnswers, TextAnswers
from evaluation.judging import Judge, JudgeFailed
from evaluation.quantity import classes

GAS = choices.listed("Which gas do plants take in?", ["oxygen", "carbon dioxide", "helium", "neon"])


def judged(answers, gold: str, response: str, question: str = "") -> str:
    with Judge(answers) as judge:
        found = judge.read(question, response)
        return judge.judge([(judge.gold(question, gold), found and found.text)])[0]


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("Plants breathe it in. The answer is (B).", "correct"),
        ("The answer is carbon dioxide.", "correct"),
        (r"So it is \boxed{\text{carbon dioxide}}", "correct"),
        ("**Answer: B**", "correct"),
        ("Plants need CO2, so B is the correct answer.", "correct"),
        ("<think>The answer is A</think>The answer is B", "correct"),
        ("The answer is (C).", "wrong"),
        ("The answer is helium", "wrong"),
        ("I think that a plant takes in gas. A plant is alive.", "unparsed"),
        ("The answer is argon", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_a_choice_is_its_letter_or_its_text(response, verdict):
    assert judged(ChoiceAnswers(), "B", response, GAS) == verdict
    assert judged(ChoiceAnswers(), "carbon dioxide", response, GAS) == verdict


@pytest.mark.parametrize(
    ("gold", "response", "verdict"),
    [
        ("Paris", "The answer is paris.", "correct"),
        ("The Treaty of Versailles", "The answer is the Treaty of Versailles, signed in 1919.", "correct"),
        ("United States\nUSA\nUnited States of America", "Final answer: the U.S.A.", "wrong"),
        ("United States\nUSA\nUnited States of America", "Final answer: the USA", "correct"),
        ("Marie Curie", r"\boxed{\text{Marie Curie}}", "correct"),
        ("Marie Curie", "The answer is Pierre Curie", "wrong"),
        ("Marie Curie", "I do not know.", "unparsed"),
    ],
)
def test_short_text_is_any_of_its_golds_without_case_signs_and_articles(gold, response, verdict):
    assert judged(TextAnswers(), gold, response) == verdict


@pytest.mark.parametrize(
    ("answers", "gold", "response", "verdict"),
    [
        (NumberAnswers(tolerance=0.01), "12742", "The answer is 12,750 km.", "correct"),
        (NumberAnswers(tolerance=0.01), "12742", "The answer is 13000", "wrong"),
        (NumberAnswers(unit="km"), "12742", "The answer is 12742000 m", "correct"),
        (NumberAnswers(unit="km"), "12742", "The answer is 12742 seconds", "unparsed"),
        (NumberAnswers(unit="km"), "12742 km", "The answer is 12742", "correct"),
        (NumberAnswers(within=0.5), "0", r"\boxed{-0.4}", "correct"),
        (NumberAnswers(within=0.5), "0", r"\boxed{0.6}", "wrong"),
        (NumberAnswers(unit="m/s^2", tolerance=0.02), "9.81", r"\boxed{g = 9.8\ \text{m/s}^2}", "correct"),
        (NumberAnswers(tolerance=0.05), "6.02e23", r"\boxed{6 \times 10^{23}}", "correct"),
        (NumberAnswers(), "5000000", "The answer is 5 million", "correct"),
        (NumberAnswers(), "5", "The answer is none of them", "unparsed"),
    ],
)
def test_a_number_is_compared_within_its_tolerance_in_its_unit(answers, gold, response, verdict):
    assert judged(answers, gold, response) == verdict


def test_what_was_mathematics_stays_mathematics():
    assert judged(MathAnswers(), r"\frac{1}{2}", r"\boxed{0.5}") == "correct"
    assert judged(MathAnswers(), "4", "There are 4 of them.") == "unparsed", "a guess votes for nothing"
    assert judged(MathAnswers(levels=("last", "boxed")), "4", "There are 4 of them.") == "correct"


@pytest.mark.parametrize(
    ("answers", "said", "num_classes"),
    [
        (ChoiceAnswers(), ["B", "C", None, "B"], 2),
        (TextAnswers(), ["the Paris", "paris", "Rome", None, "Paris!"], 2),
        (NumberAnswers(tolerance=0.1), ["100", "105", "112", "1", None, "words"], 3),
        (MathAnswers(), ["1/2", "0.5", "2", None], 2),
    ],
)
def test_classes_do_not_depend_on_the_order_of_the_answers(answers, said, num_classes):
    shuffled = list(enumerate(said))
    random.Random(1).shuffle(shuffled)
    with Judge(answers) as judge:
        a, b = judge.classes_many([said, [text for _, text in shuffled]])
    assert a.representatives == b.representatives and len(a.representatives) == num_classes
    assert [a.labels[i] for i, _ in shuffled] == list(b.labels)
    assert all(label is not None for label, text in zip(a.labels, said, strict=True) if text not in (None, "words"))


@given(st.lists(st.none() | st.fractions(), max_size=12), st.floats(0, 0.5), st.floats(0, 5))
def test_numbers_of_one_class_are_close_to_its_smallest(values, relative, absolute):
    labels = classes(values, relative=relative, absolute=absolute)
    for label in set(labels) - {None}:
        mine = [v for v, k in zip(values, labels, strict=True) if k == label]
        assert max(mine) - min(mine) <= max(relative * abs(min(mine)), absolute) + 1e-9
    assert [v is None for v in values] == [k is None for k in labels]


# ------------------------------------------------------------------------------------------------ options
_OPTION = st.text(st.sampled_from("abc xyz05.$()-'"), min_size=1).map(lambda t: " ".join(t.split())).filter(bool)


@given(st.text(st.sampled_from("Which is A or B? .\n"), max_size=40), st.lists(_OPTION, min_size=2, max_size=26))
def test_a_listed_question_is_parted_into_itself(question, options):
    question = question.strip()
    if choices.parted(question)[1]:
        return
    found = choices.parted(choices.listed(question, options))
    assert found == (question, tuple(option.strip(" \t\n;,*") for option in options))


@pytest.mark.parametrize("text", ["", "What is A?", "A. one", "Is B. S. Johnson a writer?", "1. x 2. y", "C. a D. b"])
def test_what_has_no_options_has_none(text):
    assert choices.parted(text) == (text, ())


def test_an_initial_before_the_options_is_none_of_them():
    text = "Who taught A. Turing? A. Church B. Gödel C. Hilbert"
    assert choices.parted(text) == ("Who taught A. Turing?", ("Church", "Gödel", "Hilbert"))


def test_parting_takes_linear_time():
    for piece in ("A. ", "A. B. ", "(A) x ", "A.\n", "x" * 9 + " "):
        begun = time.process_time()
        choices.parted(piece * 100_000)
        assert time.process_time() - begun < 5.0, "quadratic would be minutes"


# ------------------------------------------------------------------------------------------------ words
@given(st.text(), st.text())
def test_token_f1_is_symmetric_and_one_for_equals(a, b):
    assert words.token_f1(a, [b]) == words.token_f1(b, [a])
    assert words.token_f1(a, [a]) == (1.0 if words.normal(a) else 0.0)
    assert 0.0 <= words.token_f1(a, [b]) <= 1.0


def test_token_f1_of_a_known_pair():
    """Two of three words of the answer are among the gold's four: P 2/3, R 1/2, F1 4/7."""
    assert words.token_f1("the small red house", ["red brick house there", "no"]) == pytest.approx(4 / 7)


# ------------------------------------------------------------------------------------------------ a user's own
def function(code: str) -> PythonAnswers:
    return PythonAnswers(path="mine.py:read", text=f"def read(question, text):\n{code}", limit_s=0.5)


def test_a_users_function_reads_answers_and_golds_alike():
    own = function("    return text.split()[-1].lower() if text else None")
    assert judged(own, "it is FOUR", "I say four") == "correct"
    assert judged(own, "it is FOUR", "I say five") == "wrong"
    assert judged(own, "it is FOUR", "") == "unparsed"
    with Judge(own) as judge:
        found = judge.classes_many([["a", "b", "a", None]])[0]
        assert found.labels == (0, 1, 0, None) and found.representatives == ("a", "b")


def test_an_answer_on_which_a_users_function_hangs_or_dies_is_none():
    own = function("    import os, time\n    time.sleep(9) if text == 'slow' else text == 'dead' and os._exit(1)\n    return text")
    with Judge(own) as judge:
        assert judge.read("", "slow") is None and judge.read("", "dead") is None
        assert judge.read("", "quick").text == "quick"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("    raise KeyError('x')", r"answers.path mine.py:read: it raised KeyError: 'x'; the question: 'why'"),
        ("    return 5", "returned 5, no text and not None"),
    ],
)
def test_a_users_function_that_is_wrong_is_named(code, message):
    with Judge(function(code)) as judge, pytest.raises(JudgeFailed, match=message):
        judge.read("why", "text")


def test_a_function_that_is_not_there_is_found_out_before():
    with Judge(PythonAnswers(path="no_such.module:read")) as judge, pytest.raises(JudgeFailed, match="cannot be loaded"):
        judge.check()
    with pytest.raises(ValueError, match="write package.module:function"):
        PythonAnswers(path="module")


# ------------------------------------------------------------------------------------------------ faults
@pytest.mark.parametrize(
    ("answers", "question", "gold", "fault"),
    [
        (ChoiceAnswers(), "Which?", None, "no lettered options"),
        (ChoiceAnswers(), GAS, "E", "none of the letters A to D and"),
        (ChoiceAnswers(), GAS, "(B)", ""),
        (ChoiceAnswers(), GAS, "carbon dioxide", ""),
        (ChoiceAnswers(), GAS, None, ""),
        (NumberAnswers(), "How far?", "far", "which is no number"),
        (NumberAnswers(unit="km"), "How far?", "3 s", "no number that can be km"),
        (NumberAnswers(), "How far?", "3", ""),
        (TextAnswers(), "Who?", "Curie", ""),
    ],
)
def test_what_does_not_fit_the_domain_is_said(answers, question, gold, fault):
    with Judge(answers) as judge:
        found = judge.fault(question, gold)
    assert fault in found and bool(fault) == bool(found)


def test_a_run_file_brings_the_function_that_stands_beside_it(tmp_path: Path):
    from serl.config.files import Source
    from serl.config.read import with_files

    (tmp_path / "mine.py").write_text("def read(q, t): return t")
    source = Source(tmp_path / "run.yaml", {"answers": {"kind": "python", "path": "mine.py:read"}}, {})
    assert with_files(source).tree["answers"]["text"] == "def read(q, t): return t"


def test_an_answer_of_several_lines_is_one_answer():
    """A gold of several lines is several; a majority that serves as gold must not fall apart into its rows."""
    written = "\\boxed{\\begin{pmatrix}1 & 2\\\\\n3 & 4\\end{pmatrix}}"
    with Judge(MathAnswers()) as judge:
        answer = judge.read("", written).text
        assert "\n" not in answer and judge.judge([(answer, answer), (answer, "3")]) == ["correct", "wrong"]
