"""What tokens weigh for the sampling engine's numerics: every level and action in plain loops."""

import math

import pytest
import torch
from pydantic import ValidationError

from serl.config.objectives import FIELD_BOUNDS, Correction
from serl.learning.correction import correction_weights, weight_summary

LENGTHS = [4, 1, 6, 2]


def given() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    old_T = -3 * torch.rand(sum(LENGTHS), generator=g)
    return old_T, old_T - 0.8 * torch.randn(sum(LENGTHS), generator=g)


def oracle(settings: Correction, old: list[float], behaviour: list[float]) -> list[float]:
    low, high = settings.bounds
    weights, start = [], 0
    for n in LENGTHS:
        ratios = [math.exp(old[t] - behaviour[t]) for t in range(start, start + n)]
        product = math.prod(ratios)
        match settings.level:
            case "sequence":
                ratios = [product] * n
            case "geometric":
                ratios = [product ** (1 / n)] * n
        for w in ratios:
            if settings.action == "truncate":
                weights.append(min(max(w, low), high))
            else:
                weights.append(w if low <= w <= high else 0.0)
        start += n
    return weights


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("action", ["truncate", "mask"])
@pytest.mark.parametrize("bounds", [{}, {"low": 0.7, "high": 1.3}, {"low": 0.0}])
def test_weights_equal_the_slow_oracle(level, action, bounds):
    settings = Correction(level=level, action=action, **bounds)
    old_T, behaviour_T = given()
    made = correction_weights(settings, old_T, behaviour_T, torch.tensor(LENGTHS))
    assert made.tolist() == pytest.approx(oracle(settings, old_T.tolist(), behaviour_T.tolist()), rel=1e-5)


@pytest.mark.parametrize(("level", "action"), FIELD_BOUNDS)
def test_weights_are_one_where_both_engines_agree(level, action):
    old_T, _ = given()
    made = correction_weights(Correction(level=level, action=action), old_T, old_T, torch.tensor(LENGTHS))
    assert made.tolist() == [1.0] * sum(LENGTHS)


def test_the_default_is_truncated_importance_sampling_at_two():
    old_T, behaviour_T = given()
    made = correction_weights(Correction(), old_T, behaviour_T, torch.tensor(LENGTHS))
    assert torch.equal(made, (old_T - behaviour_T).exp().clamp(max=2.0))


@pytest.mark.parametrize("action", ["truncate", "mask"])
def test_a_product_that_overflows_is_bounded_not_a_nan(action):
    gap_T = torch.full((200,), 1.0)
    settings = Correction(level="sequence", action=action)
    made = correction_weights(settings, gap_T, torch.zeros(200), torch.tensor([200]))
    assert made.unique().tolist() == ([2.0] if action == "truncate" else [0.0])


def test_summary_tells_the_share_that_was_silenced():
    assert weight_summary(torch.tensor([0.0, 1.0, 1.0, 0.0])) == {
        "correction_mean": 0.5, "correction_masked": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("bounds", [{"high": 0.5}, {"low": 1.5}, {"low": 3.0, "high": 2.0}])
def test_bounds_that_leave_out_agreement_are_refused(bounds):
    with pytest.raises(ValidationError, match="use low <= 1 <= high"):
        Correction(**bounds)
