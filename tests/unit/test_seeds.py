"""Numbers over seeds: known values of Student's distribution, and tests that alarm falsely no more often than they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scores import mcnemar
from evaluation.seeds import crossed, holm, over_seeds, student_p, student_quantile, verdict


@pytest.mark.parametrize("t", [0.1, 1.0, 2.0, 12.7])
def test_students_tail_has_its_closed_forms(t):
    assert math.isclose(student_p(t, 1), 1 - 2 / math.pi * math.atan(t), rel_tol=1e-9)
    assert math.isclose(student_p(t, 2), 1 - t / math.sqrt(2 + t * t), rel_tol=1e-9)
    assert math.isclose(student_p(min(t, 4.0), 1e6), math.erfc(min(t, 4.0) / math.sqrt(2)), rel_tol=1e-4)


@pytest.mark.parametrize(("freedom", "known"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (100, 1.9840)])
def test_students_quantiles_are_those_of_the_tables(freedom, known):
    assert student_quantile(freedom) == pytest.approx(known, abs=1e-4)


def test_the_interval_over_seeds_covers_and_one_seed_has_none():
    rng = np.random.default_rng(1)
    covered = [s.low <= 0.5 <= s.high for s in (over_seeds(rng.normal(0.5, 0.03, 3).tolist()) for _ in range(2000))]
    assert 0.93 < np.mean(covered) < 0.97
    assert math.isnan(over_seeds([0.4]).low) and over_seeds([0.4]).value == 0.4 and over_seeds([]).n == 0


def answers(rng: np.random.Generator, ease_P: np.ndarray, num_seeds: int, skill: float, spread: float) -> np.ndarray:
    """Right or wrong: problems differ, recipes like some problems more, and every seed has its luck."""
    num_problems = len(ease_P)
    ability_S1 = skill + spread * rng.standard_normal((num_seeds, 1))
    taste_P = 0.1 * rng.standard_normal(num_problems)
    return (ease_P + taste_P + 0.15 * rng.standard_normal((num_seeds, num_problems)) < ability_S1).astype(float)


@pytest.mark.parametrize(("num_seeds", "num_problems", "spread"), [(2, 200, 0.05), (3, 200, 0.03), (3, 500, 0.1), (5, 100, 0.05)])
def test_equal_recipes_are_called_different_in_no_more_than_a_twentieth_of_sweeps(num_seeds, num_problems, spread):
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(600):
        ease = rng.uniform(size=num_problems)
        alarms += crossed(*(answers(rng, ease, num_seeds, 0.5, spread) for _ in range(2))).p < 0.05
    assert alarms / 600 < 0.075


def test_a_real_difference_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        ease = rng.uniform(size=300)
        found.append(crossed(answers(rng, ease, 3, 0.4, 0.02), answers(rng, ease, 3, 0.6, 0.02)))
    assert np.mean([d.p < 0.05 for d in found]) > 0.9
    assert np.mean([d.low <= 0.2 <= d.high for d in found]) > 0.93


def test_one_seed_is_compared_over_problems_alone():
    first, second = np.array([[1.0, 0, 0, 1, 0, 0, 1, 0]]), np.array([[1.0, 1, 1, 1, 1, 1, 1, 0]])
    assert crossed(first, second).p == mcnemar((first[0] == 1).tolist(), (second[0] == 1).tolist())
    assert crossed(first, first).p == 1.0 and crossed(np.ones((3, 9)), np.ones((3, 9))).p == 1.0


def test_different_problems_are_refused():
    with pytest.raises(ValueError, match="need the same ones"):
        crossed(np.ones((3, 4)), np.ones((3, 5)))


def test_holms_adjustment_steps_down_and_never_falls_below_what_it_adjusts():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_what_is_said_needs_both_a_difference_and_a_small_p():
    assert [verdict(0.1, 0.01), verdict(-0.1, 0.01), verdict(0.1, 0.2), verdict(0.0, 0.01)] == ["better", "worse", "not shown", "not shown"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_value_smaller_nor_larger_than_bonferroni(p):
    adjusted = holm(p)
    assert all(before <= after <= min(1.0, len(p) * before) + 1e-12 for before, after in zip(p, adjusted))
    assert sorted(range(len(p)), key=lambda i: p[i]) == sorted(range(len(p)), key=lambda i: (adjusted[i], p[i]))
