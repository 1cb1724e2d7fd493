"""Scores against brute force, simulation and hand-made numbers."""

import itertools
import math
import random

import pytest

from evaluation.scores import avg_at_k, count_verdicts, maj_at_k, mcnemar, paired, pass_at_1, pass_at_k, score


@pytest.mark.parametrize(("n", "c", "k"), [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c, k):
    samples = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(samples, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_1_of_all_samples_is_their_mean():
    assert pass_at_k(16, 5, 1) == pytest.approx(5 / 16)
    with pytest.raises(ValueError, match="k"):
        pass_at_k(4, 2, 5)


def test_a_tie_is_worth_its_expectation_and_no_vote_nothing():
    assert maj_at_k([0, 0, 1, None], {0: True}) == 1.0
    assert maj_at_k([0, 0, 1, 1], {0: True, 1: False}) == 0.5
    assert maj_at_k([0, 1, 2], {2: True}) == pytest.approx(1 / 3)
    assert maj_at_k([None, None], {}) == 0.0


def test_every_verdict_stays_in_the_denominator():
    verdicts = ["correct", "wrong", "unparsed", "undecided", "unparsed"]
    assert count_verdicts(verdicts) == {"correct": 1, "wrong": 1, "unparsed": 2, "undecided": 1}
    assert pass_at_1([verdict == "correct" for verdict in verdicts]).value == pytest.approx(0.2)


def test_samples_of_a_problem_are_clustered():
    """Copying each sample adds no information: the error stays, where counting samples one by one would halve it."""
    once = avg_at_k([[True], [False], [True], [True]])
    four = avg_at_k([[True] * 4, [False] * 4, [True] * 4, [True] * 4])
    assert once == four
    assert once.stderr == pytest.approx(math.sqrt(3 * 0.25**2 + 0.75**2) / math.sqrt(3) / 2)


def test_an_empty_score_is_not_a_number_and_a_perfect_one_has_room_below():
    assert math.isnan(score([]).value)
    perfect = pass_at_1([True] * 20)
    assert perfect.value == perfect.high == 1.0 and 0.8 < perfect.low < 0.9


@pytest.mark.parametrize(("num_problems", "k"), [(50, 1), (200, 1), (100, 4)])
def test_intervals_cover_the_truth_nineteen_times_in_twenty(num_problems, k):
    draw = random.Random(7)
    covered, num_trials = 0, 1500
    for _ in range(num_trials):
        rates = [min(1.0, max(0.0, draw.gauss(0.6, 0.25))) for _ in range(num_problems)]
        result = avg_at_k([[draw.random() < rate for _ in range(k)] for rate in rates])
        covered += result.low <= TRUTH <= result.high
    assert 0.93 <= covered / num_trials <= 0.97


def _clipped_mean():
    draw = random.Random(3)
    return sum(min(1.0, max(0.0, draw.gauss(0.6, 0.25))) for _ in range(200_000)) / 200_000


TRUTH = _clipped_mean()


def test_mcnemar_is_the_exact_sign_test_on_the_disagreements():
    a = [True] * 12 + [False] * 2 + [True] * 50
    b = [False] * 12 + [True] * 2 + [True] * 50
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(2 * sum(math.comb(14, i) for i in range(3)) / 2**14)
    assert mcnemar(a, a) == 1.0
    assert 0 < mcnemar([True] * 5000 + [False] * 4000, [False] * 5000 + [True] * 4000) < 1e-20
    with pytest.raises(ValueError, match="paired"):
        mcnemar([True], [])


@pytest.mark.parametrize("worth", [1.0, 0.5])
def test_five_problems_that_differ_are_too_few_to_say_better(worth):
    """Resampling alone says p = 0.01 of five gains in a hundred, where a fair coin does as well one time in sixteen."""
    five, eight = (paired([0.0] * few + [1.0] * (100 - few), [worth] * few + [1.0] * (100 - few)) for few in (5, 8))
    assert five.p >= 0.0625 and five.verdict == "not shown"
    assert eight.verdict == "better"
