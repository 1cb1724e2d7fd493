"""The learning rate by step."""

import pytest

from serl.config.training import Optimizer
from serl.learning.schedule import learning_rate

COSINE = Optimizer(lr=1.0, warmup=0.03, min_lr_ratio=0.1)


@pytest.mark.parametrize(("step", "factor"), [(59, 1.0), (60, 1.0), (1000, 0.572), (2000, 0.1)])
def test_cosine_has_the_official_values_inside_the_horizon(step, factor):
    assert learning_rate(step, 2000, COSINE) == pytest.approx(factor, abs=5e-4)


@pytest.mark.parametrize("step", [2001, 3000, 4000, 10**6])
def test_past_the_horizon_the_rate_stays_at_its_floor(step):
    # the official schedule climbs again: 0.572 at step 3000, 0.998 at step 4000
    assert learning_rate(step, 2000, COSINE) == pytest.approx(0.1)


def test_the_first_step_is_not_wasted_on_a_rate_of_zero():
    assert learning_rate(0, 2000, COSINE) == pytest.approx(1 / 60)
    assert learning_rate(0, 1, COSINE) == 1.0


def test_wsd_stays_at_the_top_then_falls_linearly():
    wsd = Optimizer(lr=2.0, schedule="wsd", warmup=0.1, decay=0.5, min_lr_ratio=0.0)
    assert [learning_rate(s, 100, wsd) for s in (9, 10, 50, 75, 100, 200)] == pytest.approx(
        [2.0, 2.0, 2.0, 1.0, 0.0, 0.0]
    )


def test_constant_is_constant_after_warm_up():
    constant = Optimizer(lr=2.0, schedule="constant", warmup=0.1)
    assert {learning_rate(s, 100, constant) for s in (10, 50, 500)} == {2.0}
