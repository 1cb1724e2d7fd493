"""How answers are taken apart: lists, intervals, sets by condition, matrices, cases, units, time, and what
must stay apart.
"""

import time

import pytest

from evaluation.answers import letter_of, same
from evaluation.forms import clock, lasting, plain
from evaluation.normal import normalise
from evaluation.notation import latex, trimmed
from evaluation.structure import outline, signs

SAME = [
    ("x<5", r"(-\infty,5)"), (r"-2\leq x<1", "[-2,1)"), (r"\{x|-2\leq x<1\}", "[-2,1)"), ("x>1 and x<3", "1<x<3"), (r"x\ge 2 or x<-20", r"(-\infty,-20)\cup[2,\infty)"),
    (r"\mathbb{R}", r"(-\infty,\infty)"), ("all real numbers", r"\mathbb{R}"), (r"\emptyset", "no solution"), (r"2\pm\sqrt3", r"2+\sqrt3, 2-\sqrt3"),
    (r"0,\pm 1", r"\{1,0,-1\}"), ("d=5, M=(1,2)", "M=(1,2), d=5"), ("x=1, y=2", "y=2,x=1"), ("(x,y)=(1,2)", "x=1, y=2"), ("1 hour and 30 minutes", "90 minutes"),
    ("11:00 A.M.", "11 am"), (r"8\sqrt{3}\text{ square inches}", r"8\sqrt3"), (r"3/(1000\pi) meters / second", r"\frac{3}{1000\pi}"), (r"\approx 1.47 miles/s", "1.47"),
    (r"\begin{cases}x&x>0\\-x&x\le 0\end{cases}", r"\{\begin{array}{ll}x & x > 0\\ -x & x \leq 0\end{array}"), (r"\left|\begin{array}{ll}1&2\\3&4\end{array}\right|", "-2"),
    (r"\sum_{n=0}^{\infty} x^{n}", r"\sum_{m=0}^{\infty} x^{m}"), (r"\sum_{k=1}^{5} k", "15"), (r"\frac \pi4", r"\pi/4"), (r"\frac{12}{5,\!525}", "12/5525"),
    ("E_{1},E_{2}", "E_2, E_1"), ("3k for any integer k", "3k"), ("No", r"\text{no}"), (r"\text{C,E}", "E, C"),
    (r"(\frac15,\frac16)", r"\\left(\\frac15,\\frac16\\right)"), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\\begin{pmatrix}1\\\\2\\end{pmatrix}"), (r"\{1,2\}", r"\\{1,2\\}"),
    (r"\begin{pmatrix}\frac12\\2\end{pmatrix}", r"\begin{pmatrix}\\frac12\\2\end{pmatrix}"), ("5", r"\text{Area} = 5"), ("Total cost = 5", "5"), ("7:32", "S_1:S_2=7:32"), ("parabola", "a parabola"),
    ("15", r"15 \textnormal{ cm}"), ("15", r"15 \textbf{ cm}"), ("15", r"15\,\textit{cm}"), ("15", r"15 \mathbf{cm}"), ("15", r"15\Omega"), (r"15\text{ m}", r"15000000\mu\text{m}"),
    (r"15\text{ cm}", r"0.15\text{ m}"), ("1 hour", "60 minutes"), (r"30^\circ", r"\frac{\pi}{6}"), (r"10 \text{ m/s}", r"36 \text{ km/h}"), ("1 foot", "12 inches"), ("3 square feet", "432 in^2"),
    ("(3,4)", "x=3,y=4"), ("(3,4)", "y=4, x=3"), ("(1,2,3)", "a=1, b=2, c=3"), ("(5,2),(7,2)", "p=5,q=2;p=7,q=2"), ("(1,2),(3,4)", r"x=1,y=2\text{ or }x=3,y=4"), ("p=5,q=2;p=7,q=2", "q=2,p=7; p=5,q=2"),
    (r"x \neq 2", r"\mathbb{R}\setminus\{2\}"), (r"x \neq 2", r"(-\infty,2)\cup(2,\infty)"), (r"x\neq 2", "x != 2"), (r"\mathbb{R}-\{\frac{1}{2}\}", r"x\ne 0.5"), (r"x\neq 1, x\neq 2", r"\mathbb{R}\setminus\{1,2\}"),
    (r"x\neq \pm 1", r"\mathbb{R}\setminus\{-1,1\}"), ("all real numbers except 2 and 3", r"x\ne 2,3"), ("|x|<1", "(-1,1)"), (r"|x-2|\le 3", "[-1,5]"), ("|x|>1", r"(-\infty,-1)\cup(1,\infty)"), ("2>|x|", "-2<x<2"),
    (r"k\pi", r"n\pi"), (r"k\pi", r"n\pi, n\in\mathbb{Z}"), (r"\frac{\pi}{4}+2k\pi", r"x=\frac{\pi}{4}+2n\pi, n \in \mathbb{Z}"), ("3k for any integer k", r"3n, n\in\mathbb{Z}"), ("3k for any integer k", "3k"),
    (r"\{x|x=3k,k\in \mathbb{Z}\}", r"3n, n\in\mathbb{Z}"), (r"x=k\pi \text{ where } k \in \mathbb{Z}", r"n\pi"), (r"\{k\pi : k\in\mathbb{Z}\}", r"n\pi"), (r"x \in \mathbb{R}, x \neq 2", r"x\neq 2"), (r"\{x \mid x \neq 2\}", r"x\neq 2"), (r"1.5\text{ hours}", "90 minutes"),
    ("2516_8", "(2516)_8"), ("2A_{16}", "(2A)_{16}"), ("4.7", r"4.7\text{ k}\Omega"), (r"4700\,\Omega", r"4.7\text{ k}\Omega"), (r"2n+1, n\in\mathbb{Z}", r"2k+1, \text{ where } k \text{ is an integer}"), ("1,2,3", r"1 \text{, } 2 \text{, and } 3"),
]  # fmt: skip
DIFFERENT = [
    ("no", "on"), ("N/2", "n/2"), (r"\gamma", r"\Gamma"), ("y'", "y"), ("y''", "y'"), ("x=1, y=2", "2"), ("x=1,y=2", "x=2,y=1"), ("x<5", "y>5"), ("[1,2)", "(1,2]"),
    (r"\sum_{n=0}^{\infty} x^{n}", r"\sum_{n=0}^{11} x^{n}"), (r"1-x+\cdots", "1-x"), (r"12\mathrm{i}", "12"), ("x>1 or x<0", "0<x<1"), ("SRAC=LRAC", "LRAC=SRMC"), ("1,2", "1,2,3"),
    (r"\{x|x>1\}", r"\{x|x\ge 1\}"), (r"2\pm\sqrt3", r"2+\sqrt3"), ("E", "e"), ("(1,2),(3,4)", "(1,2),(4,3)"), ("2:30 pm", "2:30 am"), ("Ed", "De"), (r"N_{2.6}", "N_{26}"),
    (r"15\text{ cm}", r"15\text{ m}"), ("16 cm^2", "16 cm"), ("5 hours", "5 minutes"), (r"\pi/6", "30"), (r"30^\circ", "30 rad"), (r"5\text{ kg}", r"5\text{ g}"), ("5 square feet", "5 feet"),
    ("(3,4)", "y=3,x=4"), ("(5,2),(7,2)", "p=2,q=5;p=2,q=7"), ("(1,2),(3,4)", "x=1,y=4;x=3,y=2"), ("(3,4)", "x=3,x=4"), ("(3,4)", "3,4"),
    (r"x\neq 2", r"\mathbb{R}\setminus\{3\}"), (r"x\neq 2", r"(-\infty,\infty)"), (r"x\neq 2", "x=2"), ("|x|<1", "[-1,1]"), ("|x|<1", "(0,1)"), ("|x-2|<3", "(-5,5)"), ("|x|>1", "(-1,1)"),
    ("n+1", "k+1"), (r"k\pi", r"2n\pi"), (r"k\pi", r"x\pi"), ("2516_8", "(2516)_9"), ("2A_{16}", "(2A)_{15}"), ("A_{16}", "(2A)_{16}"), (r"4.7\text{ k}\Omega", r"4.7\text{ M}\Omega"), ("parabola", "a hyperbola"), ("S_1:S_2=7:32", "7:33"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "12"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SAME)
def test_two_ways_of_writing_an_answer_are_one_answer(a, b):
    assert same(a, b) and same(b, a)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_answers_that_look_alike_stay_apart(a, b):
    assert not same(a, b) and not same(b, a)


@pytest.mark.parametrize(
    ("key", "kind", "parts"),
    [
        ("1,2", "list", ("1", "2")),
        ("(1,2),(3,4)", "list", ("(1,2)", "(3,4)")),
        ("(1,2]", "(]", ("1", "2")),
        ("[1,2,3]", "tuple", ("1", "2", "3")),
        (r"\{1,2\}", "set", ("1", "2")),
        (r"\{x\mid x>0\}", "such that", ("x", "x>0")),
        (r"(1,2)\cup[3,4]", "union", ("(1,2)", "[3,4]")),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "matrix", ("1", "2", "3", "4")),
        ("1 or 2", "list", ("1", "2")),
    ],
)
def test_the_outline_of_a_collection(key, kind, parts):
    found = outline(normalise(key))
    assert found is not None and (found.kind, found.parts) == (kind, parts)


@pytest.mark.parametrize(
    "key",
    [
        "x+1",
        "f(1,2)",
        "(x+1)(x+2)",
        "(a+b)",
        r"\frac{1}{2}",
        "",
        "((",
        "}{",
        r"\begin{array}",
        "band",
        "f(x)=(1,2)+3",
    ],
)
def test_a_single_expression_or_a_torn_one_has_no_outline(key):
    assert outline(key) is None


def test_plus_and_minus_are_read_both_ways_and_minus_plus_with_them():
    assert signs(r"1\pm 2") == ("1+ 2", "1- 2") and signs(r"\pm 2") == ("2", "- 2")
    assert len(signs(r"\pm a\pm b")) == 4 and len(signs(r"\pm a\mp b")) == 2
    assert len(signs(r"\pm a\pm b\pm c\pm d")) == 1


def test_units_and_approximate_signs_go_but_nothing_else():
    assert trimmed(r"\approx 17.10\mathrm{ft}") == "17.10" and trimmed("x+y") == "x+y"
    assert trimmed(r"12\mathrm{i}") == r"12\mathrm{i}" and trimmed(r"\text{east}") == r"\text{east}"


def test_letters_that_the_parser_takes_for_constants_are_kept_as_letters():
    assert (
        latex("E+1") == r"\mathit{E}+1"
        and latex("4.5e33") == r"4.5\times 10^{33}"
        and r"\gamma" not in latex(r"\gamma_1")
    )


def test_times_and_durations():
    assert (
        clock("2: 15 PM") == clock("2:15 p.m.") == "2:15 pm"
        and clock("25:00 am") is None
        and lasting("2 hours and 15 minutes") == 135
    )


@pytest.mark.parametrize(
    "answer", ["C", "(C)", "C.", "C. 5", r"\text{C}", r"\text{(C)}", "**C**", "C) five", "$C$", "option C"]
)
def test_the_letter_that_an_answer_names(answer):
    assert letter_of(answer, 4) == "C"


@pytest.mark.parametrize("answer", ["5", "Cat", "x+C", "CD", "F", ""])
def test_an_answer_that_names_no_choice(answer):
    assert letter_of(answer, 4) is None


@pytest.mark.parametrize(
    "piece", [r"\{", "(1,", r"\pm ", "1,", r"\begin{array}", "x_{", r"\cup ", "'", "and ", r"\text{ m}", "|"]
)
def test_taking_an_answer_apart_is_quick_whatever_it_is(piece):
    text = normalise((piece * 500)[:900])
    start = time.process_time()
    outline(text), signs(text), trimmed(text), latex(text), plain(text)
    assert time.process_time() - start < 2
