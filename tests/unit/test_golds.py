"""Gold answers: the benchmarks' rules, what a gold looks like, and that every real one is understood and graded correct."""

import pytest

from evaluation.benchmark import Benchmark, Problem, benchmark_names, load_benchmark, load_problems
from evaluation.golds import apply, declared
from evaluation.relations import exceptions, read, sample
from evaluation.sanity import check, table
from evaluation.verifier import Verifier
from tests.unit.test_benchmarks import real_folder

PER_BENCHMARK = 12
MATHS = [name for name in benchmark_names() if load_benchmark(name).num_rows]


@pytest.fixture(scope="module")
def verifier():
    with Verifier(workers=1, limit_s=60.0) as pool:
        yield pool


@pytest.mark.parametrize(
    ("rule", "published", "gold"),
    [
        ("after_hashes", "so 5+13=18\n#### 18", "18"),
        ("last_box", r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("no_parentheses", "9 (apples)", "9"),
        ("no_dollars", "$x+1$", "x+1"),
        ("letter", "(C)", "C"),
        ("college_math", "Solution is: [x=1, y=2, z=-5].", "x=1, y=2, z=-5"),
        ("college_math", r"-2 \leqslant n \leqslant 4:[-2,4]", "[-2,4]"),
        ("college_math", "Yes. It has a unique solution.", "Yes"),
        ("college_math", r"\frac{40}{3} \approx 13.33 minutes", r"\frac{40}{3} minutes"),
        ("college_math", r"i^{6}=i^{4} \cdot i^{2}=1 \cdot(-1)=-1", "-1"),
        ("college_math", "y=2 x+1", "y=2 x+1"),
        ("college_math", r"\approx 4,457,854,041", r"\approx 4,457,854,041"),
    ],
)
def test_a_rule_makes_the_gold_and_leaves_it_alone_the_second_time(rule, published, gold):
    assert apply(rule, published) == gold
    assert apply(rule, gold) == gold


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("1,234", "number"), ("4.5e33", "number"), ("x+1", "expression"), ("x=1", "relation"), ("1,2", "list"), (r"\{1\}", "set"), ("(1,2)", "pair"),
        ("[1,2)", "interval"), (r"(1,2)\cup(3,4)", "union"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "matrix"), ("Rug B", "words"), ("2:30 pm", "time"),
        (r"\sum_{n=0}^{\infty} x^n", "series"), ("2 hours and 15 minutes", "number"), (r"\{x\mid x>0\}", "set"), (r"\mathbb{R}", "interval"),
    ],
)  # fmt: skip
def test_what_a_gold_looks_like(gold, kind):
    assert declared(gold) == kind


def test_a_gold_that_is_not_understood_is_found_although_it_equals_itself(verifier):
    benchmark = Benchmark(name="b", kind="math", version="1", licence="-", source="-", file="b.jsonl", text=("c",))
    golds = {"a": "12", "b": r"\frac{1}{", "c": "it is 5 if x<3", "d": "it is 5 if x<4"}
    problems = [Problem(benchmark="b", id=id, question="?", gold=gold) for id, gold in golds.items()]
    found = check(benchmark, problems, verifier)
    assert [row.id for row in found.misread] == ["b", "d"] and found.num_understood == 1 and found.num_text == 1 and not found.sound
    assert "50.00%" in table([found])[1]


@pytest.mark.parametrize("name", MATHS)
def test_real_golds_are_understood_and_graded_correct(name, verifier):
    """Every n-th gold; `python -m evaluation.sanity` checks all of them."""
    benchmark = load_benchmark(name)
    problems = load_problems(benchmark, [real_folder()])
    every = max(1, len(problems) // PER_BENCHMARK)
    found = check(benchmark, problems[::every], verifier)
    assert found.sound, found.misread


@pytest.mark.parametrize("name", [name for name in MATHS if load_benchmark(name).kind == "math"])
def test_equality_of_real_golds_and_their_variants_is_an_equivalence(name, verifier):
    """A few golds each; `python -m evaluation.relations` tries many."""
    benchmark = load_benchmark(name)
    golds = [p.gold for p in load_problems(benchmark, [real_folder()]) if p.id not in benchmark.text]
    found = exceptions(*read(sample(golds, 6, 3), verifier))
    assert found.num_same > 0 and not found.asymmetric and not found.intransitive


def test_exceptions_are_found_where_there_are_some(verifier):
    """The documented courtesy: a name may be left out, so x=5 ~ 5 ~ y=5."""
    found = exceptions(*read(["x=5", "5", "y=5", "7"], verifier))
    assert found.asymmetric == () and found.intransitive == (("x=5", "5", "y=5"),)
