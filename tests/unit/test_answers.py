"""What a response's final answer is, and when two answers mean the same."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.answers import extract, same
from evaluation.forms import plain
from evaluation.normal import MAX_ANSWER_CHARS, normalise

SAME = [
    ("5", "5.0"), ("1/2", r"\frac12"), ("0.5", r"\dfrac{1}{2}"), ("4.5e33", r"4.5\times 10^{33}"), (r"35\%", "35"), ("x=5", "5"),
    ("5", "2+3=5"), ("Sara", r"\text{sara}"), ("0.333333", "1/3"), (r"2\frac12", "2.5"), ("2 1/2", "5/2"), ("18 dollars", r"\$18"),
    (r"12 \mathrm{m/s}", "12"), ("5 cm", "5"), ("1{,}234", "1234"), (r"10\,000", "10,000"), (r"\{1,2\}", "2,1"), ("(1,2)", "( 1, 2 )"),
    ("x^2+2x+1", "(x+1)^2"), (r"\sin^2 x+\cos^2 x", "1"), (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt{2}}"), ("1<x<2", "2>x>1"),
    ("y=2x", r"x=\frac{y}{2}"), ("2x+y=1", "4x+2y=2"), ("x<5", "-x>-5"), (r"(-\infty,5)\cup(6,7]", r"(6,7]\cup(-\infty,5)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1.0\\2\end{bmatrix}"), (r"x=1\text{ or }x=2", "1,2"), ("11_2", "11"),
    (r"x=\pm2", r"\{-2,2\}"), (r"60^\circ", "60"), ("f(x)=x^2", "x^2"), ("a=b=5", "5"), (r"\text{(C)}", "C"), ("\u22125", "-5"),
    (r"e^{i\pi}", "-1"), (r"\sqrt{-4}", "2i"), ("1/2004!", r"\frac{1}{2004!}"), (r"\frac{1}{2}x", "0.5x"), ("f(x)+1", "1+f(x)"),
    (r"x \in [1,2]", "[1,2]"), (r"\binom{10}{3}", "120"), (r"0.\overline{3}", "1/3"), ("10 000", "10000"), ("3x10^5", "300000"), ("(x,y)=(1,2)", "(1,2)"), ("(x,y)=(1,2)", "x=1,y=2"), ("(x,y)=(1,2)", "(y,x)=(2,1)"),
    (r"\max at x=7", "max at x=7.0"), (r"\min at x=1, \max at x=2", r"\max at x=2, \min at x=1"), (r"25\text{ cm}^2", "25"), ("2:35 P.M.", "2:35 pm"),
    ("40, 200", "200, 40"), ("2\u00bd", "2.5"), ("x\u00b2+1", "x^2+1"), ("4\u221a3", r"\sqrt{48}"), ("10\u207b\u00b3", "0.001"), ("a\u2081", "a_1"),
    (r"\boldsymbol{5}", "5"), (r"\textcolor{red}{\frac12}", "0.5"), (r"\underline{x+1} \checkmark", "1+x"), ("0.1666...", "1/6"), (r"0.\bar{3}", "1/3"), (r"0.1818\ldots", "2/11"), (r"\text{5 apples}", "5"), (r"\text{No solution.}", r"\emptyset"),
    (r"\text{all real numbers}", r"(-\infty,\infty)"), ("5 million dollars", "5,000,000"), (r"5\text{ m}/\text{s}^2", "5"), (r"5 \mathrm{m/s^2}", "5"),
    (r"9.8 \frac{\text{m}}{\text{s}^2}", "9.8"), (r"60\degree", "60"), (r"\lbrace 1,2\rbrace", "1,2"),
]  # fmt: skip
DIFFERENT = [
    ("2+3=5", "3+4=7"), ("1=2", "3=4"), ("2+3=7", "7"), ("I=5", "I=7"), ("3>2", "5>4"), ("4x^2+8x+19=0", "x^2+1=0"), ("1e-7", "2e-7"),
    ("1/2004!", "1/2006!"), ("Sara", "Aras"), ("0.35", r"35\%"), ("3t", "3"), ("x=5", "y=5"), (r"x<\frac12", r"x\ge\frac12"),
    ("-1,2,-2", "-1,0,1"), ("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), ("10", "1000"), ("10234.56", "10234.6"), ("1000000", "1000001"),
    (r"\sqrt{x^2}", "x"), ("2^{100000}", "2^{100001}"), ("11_2", "11_3"), ("[1,2]", "[1,2)"), ("yes", "no"), ("y=2x", "y=3x"),
    ("5 apples", "6 apples"), ("x<5", r"x\le 5"), ("x<5", "x>5"), ("1/3", "0.33"), ("m^2+3m", "m^2+3"),
    ("2 3", "5"), ("10 00", "1000"), ("(x,y)=(1,2)", "(2,1)"), ("(x,y)=(1,2)", "(y,x)=(1,2)"), (r"\max at x=7", r"\min at x=7"), ("5 or 7", "5"), ("5=7", "5"),
    ("40, 200", "40200"), ("5 million", "5"), ("0.33...", "1/3"), (r"\log (0.1)=-2", "-2"),
    (r"\left\lfloor\frac{2n}{3}\right\rfloor+1", r"\left\lfloor\frac{n}{3}\right\rfloor+1"), ("0.122...", "0.12"),
    (r"5 \text{ 7}", "5"), ("1/0", r"\infty"), (r"p\wedge q", r"p\vee q"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SAME)
def test_honest_forms_of_an_answer_are_the_same_both_ways(a, b):
    assert same(a, b) and same(b, a)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_answers_stay_different_both_ways(a, b):
    assert not same(a, b) and not same(b, a)


def test_same_is_symmetric_over_all_the_answers_here():
    answers = sorted({answer for pair in SAME + DIFFERENT for answer in pair})
    pairs = random.Random(0).sample([(a, b) for a in answers for b in answers], 3000)
    assert all(same(a, b) == same(b, a) for a, b in pairs)


def test_a_chain_through_true_equations_does_not_join_unlike_numbers():
    """math-verify accepts 5 ~ 2+3=5 ~ 3+4=7 ~ 7; here the chain breaks where it should."""
    assert same("5", "2+3=5") and same("3+4=7", "7") and not same("2+3=5", "3+4=7") and not same("5", "7")


def test_what_cannot_be_read_is_the_same_only_as_itself():
    assert same(r"\frac{1}{", r"\frac{1}{") and not same(r"\frac{1}{", r"\frac{2}{") and not same("", "")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}} and then \boxed{3", r"\frac{1}{2}"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed 5 it is", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5} \text{ cm}}", "5"),
        (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."),
        ("The answer is 12.", "12"),
        ("The answer is $x+1$, I think.", "x+1"),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
        ("the answer is (C).", "C"),
        ("The answer is **C**", "C"),
        ("The correct answer is C. because of that", "C"),
        ("**Answer:** 12", "12"),
        ("### Answer\n12", "12"),
        ("#### 42", "42"),
        ("Answer: 3.5 dollars because of it", "3.5 dollars"),
        ("The answer is 1,234.", "1,234"),
        (r"the answer is \(\frac12\)", r"\frac12"),
        ("The answer to the question is 7", "7"),
        ("The answers are 1, 2, and 3.", "1, 2, and 3"),
        ("The answer is 1. No, the answer is 2.", "2"),
        (r"The answer is 3, that is \boxed{4}", "4"),
        (r"so the answer is \boxed{5", None),
        (r"\boxed{}", None),
        ("we find 5", None),
        ("the answer is $", None),
        ("", None),
    ],
)
def test_the_final_answer_of_a_response(response, answer):
    assert extract(response) == answer


def test_an_answer_beyond_the_limit_is_no_answer():
    assert extract(f"\\boxed{{{'1' * MAX_ANSWER_CHARS}}}") is not None
    assert extract(f"\\boxed{{{'1' * (MAX_ANSWER_CHARS + 1)}}}") is None


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed        ",
        "{",
        "}",
        "answer is ",
        "answer of ",
        "the answer is $",
        "\\",
        " ",
        "\n#",
        "answer\n",
        "\\boxed{1}",
        "a: ",
    ],
)
def test_extraction_is_linear_in_hostile_text(piece):
    response = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    start = time.process_time()
    extract(response)
    assert time.process_time() - start < 8


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,-+/\\{}()[]$% exfractboxd^_*=<>", max_size=120))
def test_plain_reading_never_fails_and_normal_text_is_stable(text):
    key = normalise(text)
    plain(key)
    assert extract(text) is None or len(extract(text)) <= MAX_ANSWER_CHARS


@settings(max_examples=200, deadline=None)
@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_a_fraction_is_read_exactly_in_each_notation(number):
    over, under = number.numerator, number.denominator
    assert {
        plain(normalise(text)).exact
        for text in (f"{over}/{under}", f"\\frac{{{over}}}{{{under}}}", f"${over} / {under}$.")
    } == {number}
