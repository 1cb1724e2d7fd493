"""The letter of a choice, as people and models write it, and the words that are none."""

import pytest

from evaluation.letters import read_letter

CHOSEN = [
    ("The answer is **(C)**. I hope this helps.", "C"), (r"The final answer is \boxed{C}. I am sure.", "C"), (r"The answer is $\text{C}$. As I said, A triangle", "C"),
    ("the answer is (c)", "C"), ("The best choice is option C: 2. A triangle has three sides.", "C"), ("The correct option is C", "C"), ("answer: b", "B"),
    (r"\boxed{\text{(D) } 12}", "D"), (r"\boxed{(b)}", "B"), (r"\boxed{c}", "C"), (r"The correct answer is $\boxed{\textbf{(C) } 42}$", "C"), ("**Answer:** C", "C"),
    ("Answer: **C. 5 apples**", "C"), ("Option B is correct.", "B"), ("(D) is the correct answer", "D"), ("I would go with B.", "B"), ("<answer>d</answer>", "D"),
    ("The answer is A because it fits", "A"), ("The answer is I.", "I"), ("So it's (C).", "C"), ("### Answer\nC", "C"), ("the answer would be option (C)", "C"),
    ("The answer is not (A). The answer is (B)", "B"), ("Choice A says x. Choice C is the best answer", "C"),
    ("So it must be option b.", "B"), ("My choice: C)", "C"), ("It should be choice (D), I think", "D"),
]  # fmt: skip
NONE = [
    "I hope this is right. A triangle has three sides.", "The answer is A triangle.", "The answer is I hope", r"\boxed{5}", r"\boxed{A, B}", "The answer is A and B.",
    "The answer is (J).", "the answer is a positive number", "The answer is x+1", "the answer is $c^2$", "Let A be a set and B its complement", "I'm not sure", "",
]  # fmt: skip


@pytest.mark.parametrize(("response", "letter"), CHOSEN)
def test_a_letter_that_is_marked_as_the_choice_is_read(response, letter):
    assert read_letter(response, 9).text == letter


@pytest.mark.parametrize("response", NONE)
def test_a_letter_that_is_a_word_or_one_of_several_is_not(response):
    assert read_letter(response, 9) is None


def test_a_letter_has_a_level_and_a_guess_is_made_only_of_what_has_ended():
    levels = [
        read_letter(text, 4).level
        for text in (r"\boxed{C}", "The answer is C", "<answer>C</answer>", "I think (C) fits")
    ]
    assert levels == ["boxed", "announced", "tagged", "last"]
    assert (
        read_letter("I think (C) fits", 4, finished=False) is None
        and read_letter("(C)", 4, levels=("boxed",)) is None
    )
