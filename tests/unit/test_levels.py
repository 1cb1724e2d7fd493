"""How plainly a response says what its answer is, and which of several things it says is the answer."""

import pytest

from evaluation.answers import LEVELS, SURE, extract, read

READ = [
    ("The hotel now has 98 guests.", "98", "last"), ("so $x = 5$ holds, as claimed", "x = 5", "last"), ("it takes 24 + 18 = 42 days", "42", "last"), ("She paid $18, then $20 more.", "20", "last"),
    ("The answer must be 42", "42", "announced"), ("the answer should be $\\frac12$.", "\\frac12", "announced"), ("The correct option is C", "C", "announced"), ("The answer turns out to be 17.", "17", "announced"),
    ("The answer is still 42.", "42", "announced"), ("the answer is indeed 42", "42", "announced"), ("thus the answer is clearly $7$.", "7", "announced"),
    ("The answer is 42. I hope my answer is correct.", "42", "announced"), ("The answer is 12. The answer is correct.", "12", "announced"), ("The answer is 3. Let me check that the answer is 4", "3", "announced"),
    ("The answers are $-3$ and $5$.", "-3, 5", "announced"), ("Final Answer: $x=2$ or $x=3$", "x=2, x=3", "announced"), ("The answers are \\(1\\), \\(2\\), and \\(3\\).", "1, 2, 3", "announced"),
    ("Final Answer: The largest $n$ is 34.", "34", "announced"), ("Final answer: the area equals $\\frac{1}{2}$.", "\\frac{1}{2}", "announced"), ("Answer: She has 5 apples left.", "5", "announced"),
    ("The answer is 7, and I hope this answer is correct!", "7", "announced"), ("The answer, after simplification, is 12.", "12", "announced"), ("The answer is, in fact, 12.", "12", "announced"),
    ("we have \\( x = 7 \\).", "x = 7", "last"), ("The ratio is 3:4", "3:4", "last"), ("from 3-5 people", "5", "last"), ("It was -5 degrees", "-5", "last"), ("She earns $1,200.50 per week.", "1,200.50", "last"),
    ("**Final Answer**\n\nThe total is $12$.", "12", "announced"), ("<answer>42</answer>", "42", "tagged"), ("<answer>\n $\\frac12$ </answer> done", "\\frac12", "tagged"), ("so <answer>7", "7", "tagged"),
    (r"$\boxed{-2}$ and $\boxed{1}$", "-2, 1", "boxed"), (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3", "boxed"), (r"$x = \boxed{3}$ and $y = \boxed{4}$", "x=3, y=4", "boxed"), ("- $\\boxed{2}$\n- $\\boxed{3}$", "2, 3", "boxed"),
    (r"First \boxed{4}, wrong. So \boxed{5}", "5", "boxed"), (r"\boxed{4} = \boxed{5}", "5", "boxed"), (r"\boxed{0.5} or \boxed{50\%}", r"50\%", "boxed"), (r"\boxed{7} is it. Check: \boxed{}", "7", "boxed"),
    (r"$\\boxed{42}$", "42", "boxed"), (r"so $x=\boxed{3}$. The final answer is $3$ and $4$.", "3, 4", "announced"), (r"$-\boxed{256}$. The final answer is $-256$.", "-256", "announced"),
    ("The solutions are $2$ and $8$.", "2, 8", "announced"), ("so the roots are x = -1 and x = 4.", "x = -1 and x = 4", "announced"), ("The values of $x$ are 3 and 9. All is well.", "3 and 9", "announced"),
    ("The result is 5.", "5", "announced"), ("The solutions are 2 and 3. Their sum is 5.", "5", "last"), ("The possible values are 2 or 3.", "3", "last"), ("The solution is as follows: 2 and 3 are 5.", "5", "last"),
    ("The values of x are from 2 to 10, so it is 8.", "8", "last"), ("The answer ought to be 17.", "17", "announced"), ("which comes to 9, so the answer comes to 9.", "9", "announced"),
    (r"\boxed{5}. The final answer is 5 apples.", "5", "boxed"), (r"\boxed{5}. The final answer is 15.", "5", "boxed"),
]  # fmt: skip
KEPT = [
    ("Answer: Vendor 2", "Vendor 2"),
    ("The answer is the 60th caller.", "the 60th caller"),
    ("The answer is Italy.", "Italy"),
    ("The answer is all real numbers except 2.", "all real numbers except 2"),
]
NOTHING = [
    "The answer must be a positive integer.",
    "I hope the answer is correct",
    r"so the answer is \boxed{5",
    "",
    "no number here",
]


@pytest.mark.parametrize(("response", "text", "level"), READ)
def test_an_answer_and_how_plainly_it_is_said(response, text, level):
    found = read(response)
    assert found is not None and (found.text, found.level) == (text, level)


@pytest.mark.parametrize(("response", "text"), KEPT)
def test_words_that_are_announced_stay_as_they_are(response, text):
    assert extract(response) == text


@pytest.mark.parametrize("response", NOTHING)
def test_what_announces_no_answer_has_none(response):
    assert extract(response) is None


def test_a_guess_is_no_vote_and_what_was_cut_off_is_never_guessed_at():
    assert SURE == LEVELS[:-1] and extract("The hotel now has 98 guests.") is None
    assert (
        read("The hotel now has 98", finished=False) is None
        and read("the <answer>98", finished=False) is None
    )
    assert (
        read(r"The answer is 5. \boxed{6}", levels=("announced",)).text == "5"
        and read("The answer is 5", levels=("boxed",)) is None
    )
