"""The toy domain: right answers, a clean hold-out, and documents in the formats that prompts and parsers use."""

import random
import re
from collections import Counter

import pytest

from serl.world import arithmetic as toy
from serl.world.solver import solve


def parts_of(question_list: str) -> list[str]:
    return [line.split(". ", 1)[1] for line in question_list.splitlines()]


def test_everything_is_a_function_of_the_seed():
    assert toy.corpus(3, 200) == toy.corpus(3, 200) != toy.corpus(4, 200)
    assert toy.seed_problems(3, 50) == toy.seed_problems(3, 50) != toy.seed_problems(4, 50)
    assert toy.train_problems(3, 50) == toy.train_problems(3, 50) != toy.seed_problems(3, 50)
    assert toy.test_problems(300)[:100] == toy.test_problems(100)


def test_solver_agrees_with_the_chain_behind_every_question():
    rng = random.Random(0)
    for problem in (toy.make_problem(rng) for _ in range(3000)):
        assert solve(problem.question) == problem.gold == toy.values(problem.start, problem.operations)[-1]
        assert all(1 <= value <= 99 for value in toy.values(problem.start, problem.operations))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 2 + 3 * 4?", 14),
        ("What is (2 + 3) * 4?", 20),
        ("Compute 120 - (7 - 2) * 3 - 1.", 104),
        ("Evaluate ((3)) * 2.", 6),
        (
            "Tom has 100 pens. Mia buys 250 more. Soon there are 3 times as many. How many pens are left?",
            1050,
        ),
        ("What is 3 - 5?", None),
        ("What is 7?", None),
        ("What is 3 + ?", None),
        ("What is 3 4 + 1?", None),
        ("What is (3 + 1?", None),
        ("What is 3 + 1)?", None),
        ("What is __import__('os')?", None),
        ("Tom has 4 pens.", None),
        ("Tom has 4 pens. How many pens are left?", None),
        ("Tom has 4 pens. Then it rains 3. How many pens are left?", None),
        ("How many pens are left?", None),
        ("", None),
        ("What is " + "(" * 70 + "1?", None),
        ("Tom has 4 pens. " + "Mia adds 3. " * 5000 + "How many pens are left?", None),
    ],
)
def test_solver_reads_well_formed_text_and_nothing_else(question, answer):
    assert solve(question) == answer


def test_a_tenth_of_the_chains_is_held_out_whatever_the_wording():
    rng = random.Random(1)
    problems = [toy.make_problem(rng) for _ in range(5000)]
    assert 0.07 < sum(toy.held_out(p) for p in problems) / len(problems) < 0.13
    by_chain: dict[tuple, set[bool]] = {}
    for problem in problems:
        by_chain.setdefault((problem.start, problem.operations), set()).add(toy.held_out(problem))
    assert all(len(verdicts) == 1 for verdicts in by_chain.values())


def test_no_held_out_question_leaks_into_corpus_seeds_or_labelled_problems():
    tests = {p.question for p in toy.test_problems(1000)} | {
        c.problem.question for c in toy.choice_problems(400)
    }
    shown = {p.question for p in toy.seed_problems(0, 200) + toy.train_problems(0, 500)}
    for document in toy.corpus(0, 3000):
        if document.kind == "list":
            shown.update(parts_of(document.completion))
        else:
            shown.add(
                document.prompt.split("\nAnswer:")[0].split("\nOptions:")[0].removeprefix("Question:").strip()
            )
    assert len(tests) > 1300 and len(shown) > 3000
    assert not tests & shown
    assert all(toy.held_out(p) for p in toy.test_problems(200))


def test_validation_problems_are_held_out_too_and_none_of_them_is_reported():
    reported = {p.question for p in toy.test_problems(500)}
    chosen_by = toy.validation_problems(100, apart=reported)
    assert len({p.question for p in chosen_by} - reported) == 100 and all(toy.held_out(p) for p in chosen_by)
    assert toy.validation_problems(50, apart=reported) == chosen_by[:50]


def test_both_styles_box_the_same_answer_and_every_step_is_true():
    rng = random.Random(2)
    for problem in (toy.make_problem(rng) for _ in range(500)):
        assert toy.solution(problem, "direct") == f" \\boxed{{{problem.gold}}}"
        steps = toy.solution(problem, "steps")
        assert steps.startswith(" Step by step: ") and steps.endswith(f". \\boxed{{{problem.gold}}}")
        equations = re.findall(r"(\d+) ([+*-]) (\d+) = (\d+)\.", steps)
        assert len(equations) == len(problem.operations)
        assert all(toy.apply(int(a), operator, int(b)) == int(c) for a, operator, b, c in equations)


def test_the_steps_style_reads_as_documented():
    problem = toy.Problem(
        question="What is (3 + 4) * 2?", start=3, operations=(("+", 4), ("*", 2)), kind="expression"
    )
    assert toy.solution(problem, "steps") == " Step by step: 3 + 4 = 7. 7 * 2 = 14. \\boxed{14}"


def test_corpus_is_mixed_as_asked():
    mix = toy.Mix(lists=0.2, choices=0.1, direct_story=0.0, direct_expression=1.0)
    documents = toy.corpus(5, 4000, mix)
    share = {kind: count / len(documents) for kind, count in Counter(d.kind for d in documents).items()}
    assert share["list"] == pytest.approx(0.2, abs=0.03)
    assert share["choice"] == pytest.approx(0.1, abs=0.02)
    assert all(
        ("What is" in d.prompt or "ompute" in d.prompt or "valu" in d.prompt)
        for d in documents
        if d.kind == "direct"
    )
    assert all(d.completion.startswith(" ") for d in documents if d.kind != "list")


def test_question_lists_are_numbered_from_one_and_end_with_a_line_break():
    lists = [d for d in toy.corpus(6, 2000) if d.kind == "list"]
    for document in lists:
        lines = document.completion.split("\n")
        assert lines.pop() == "" and 6 <= len(lines) <= 9
        assert [line.split(". ")[0] for line in lines] == [str(i) for i in range(1, len(lines) + 1)]
        assert document.prompt == "Come up with a series of questions:\n"
        assert all(solve(question) is not None for question in parts_of(document.completion))


def test_choice_letters_are_balanced_and_name_the_right_option():
    choices = toy.choice_problems(400)
    assert set(Counter(c.gold for c in choices).values()) == {100}
    for choice in choices:
        assert len(set(choice.options)) == 4 and toy.held_out(choice.problem)
        assert choice.options["ABCD".index(choice.gold)] == str(choice.problem.gold)
        assert toy.choice_solution(choice).endswith(
            f" = {choice.problem.gold}. The answer is ({choice.gold})."
        )


def test_choice_prompt_has_the_benchmark_wording():
    problem = toy.Problem(question="What is 3 + 4?", start=3, operations=(("+", 4),), kind="expression")
    choice = toy.Choice(problem=problem, options=("6", "7", "8", "9"), gold="B")
    expected = (
        "Question:\nWhat is 3 + 4?\nOptions:\nA. 6\nB. 7\nC. 8\nD. 9\nAnswer: Let's think step by step."
    )
    instruction, _, asked = toy.choice_prompt(choice).partition("\n\n\n\n")
    assert "about arithmetic" in instruction and asked == expected
    assert toy.choice_solution(choice) == " 3 + 4 = 7. The answer is (B)."
