"""Two policies on the same problems: what the paired tests allow to be said."""

import dataclasses
import random

import pytest

from evaluation.compare import by_problem, compare, table
from evaluation.scores import paired
from evaluation.stored import Grade
from evaluation.summary import summarise


def graded(right, mode="greedy", benchmark="b", sample=0):
    return [
        Grade(benchmark=benchmark, id=str(i), sample=sample, mode=mode, response="", finish_reason="stop", kind="math", gold="1",
              num_choices=0, subject="even" if i % 2 == 0 else "odd", level=str(i % 3), verdict="correct" if ok else "wrong")
        for i, ok in enumerate(right)
    ]  # fmt: skip


def test_a_clear_gain_is_better_and_a_policy_against_itself_is_not_shown():
    first = [0.0] * 60 + [1.0] * 40
    second = [1.0] * 30 + [0.0] * 30 + [1.0] * 40
    found = paired(first, second)
    assert found.verdict == "better" and found.difference == pytest.approx(0.3) and found.low < 0.3 < found.high and found.p_mcnemar < 1e-6
    assert paired(second, first).verdict == "worse"
    assert paired(first, first).verdict == "not shown" and paired(first, first).p == 1.0
    assert paired(first, second) == found


def test_a_model_that_is_no_better_is_called_so_nineteen_times_in_twenty():
    draw = random.Random(5)
    called = 0
    for trial in range(200):
        rates = [draw.random() for _ in range(80)]
        first, second = ([sum(draw.random() < rate for _ in range(4)) / 4 for rate in rates] for _ in range(2))
        called += paired(first, second, seed=trial).verdict != "not shown"
    assert called / 200 <= 0.09


@pytest.mark.parametrize(("num_problems", "k", "gain"), [(200, 1, 0.1), (120, 4, 0.0)])
def test_paired_intervals_cover_the_true_difference_nineteen_times_in_twenty(num_problems, k, gain):
    """Problems differ in difficulty, both models find the same ones hard, and k samples of each are averaged."""
    draw = random.Random(6)
    covered, num_trials = 0, 500
    for trial in range(num_trials):
        rates = [0.05 + 0.8 * draw.random() for _ in range(num_problems)]
        first = [sum(draw.random() < rate for _ in range(k)) / k for rate in rates]
        second = [sum(draw.random() < rate + gain for _ in range(k)) / k for rate in rates]
        found = paired(first, second, seed=trial)
        covered += found.low <= gain <= found.high
    assert 0.93 <= covered / num_trials <= 0.97


def test_unequal_lengths_are_refused_and_none_is_not_a_number():
    with pytest.raises(ValueError, match="same ones"):
        paired([1.0], [])
    assert paired([], []).n == 0


def test_runs_are_compared_over_the_problems_they_share():
    first, second = graded([True, False, True]), graded([True, True, True, False])
    assert compare(first, second)["b"].n == 3 and compare(first, second)["b"].difference == pytest.approx(1 / 3)
    samples = [row for sample, right in enumerate(([True, False], [False, False])) for row in graded(right, "sample", sample=sample)]
    assert by_problem(samples) == {"b": {"0": 0.5, "1": 0.0}}
    lines = table({"base": first, "trained": second})
    assert len(lines) == 3 and "not shown" in lines[2] and "base" in lines[1]


def test_a_summary_has_parts_and_a_curve():
    rows = [row for sample in range(4) for row in graded([sample < 2, False, True], "sample", sample=sample)]
    found = summarise([*graded([True, False, True]), *rows])["b"]
    assert {name: score.value for name, score in found.parts["subject"].items()} == {"even": 1.0, "odd": 0.0}
    assert list(found.curve) == [1, 2, 4] and found.curve[1].value == pytest.approx(0.5) and found.curve[4].value == pytest.approx(2 / 3)


def test_groups_weigh_categories_by_their_questions():
    subjects = ["math"] * 3 + ["physics"] * 1 + ["law"] * 2
    rows = [
        dataclasses.replace(row, kind="choice", subject=subject)
        for row, subject in zip(graded([True, True, True, False, False, True]), subjects, strict=True)
    ]
    groups = summarise(rows)["b"].parts["group"]
    assert {name: score.value for name, score in groups.items()} == {"STEM": 0.75, "Humanities": 0.5}
