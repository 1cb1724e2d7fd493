"""What tokens weigh for the sampling engine's numerics: every level and mode in plain loops."""

import math

import pytest
import torch
from pydantic import ValidationError

from serl.config.objectives import FIELD_BOUNDS, Correction
from serl.learning.correction import correction_figures, correction_weights

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
            if settings.mode == "truncate":
                weights.append(min(max(w, low), high))
            else:
                weights.append(w if low <= w <= high else 0.0)
        start += n
    return weights


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("bounds", [{}, {"low": 0.7, "high": 1.3}, {"low": 0.0}])
def test_weights_equal_the_slow_oracle(level, mode, bounds):
    settings = Correction(level=level, mode=mode, **bounds)
    old_T, behaviour_T = given()
    made = correction_weights(settings, old_T, behaviour_T, torch.tensor(LENGTHS))
    assert made.tolist() == pytest.approx(oracle(settings, old_T.tolist(), behaviour_T.tolist()), rel=1e-5)


@pytest.mark.parametrize(("level", "mode"), FIELD_BOUNDS)
def test_weights_are_one_where_both_engines_agree(level, mode):
    old_T, _ = given()
    made = correction_weights(Correction(level=level, mode=mode), old_T, old_T, torch.tensor(LENGTHS))
    assert made.tolist() == [1.0] * sum(LENGTHS)


def test_without_a_correction_every_token_weighs_one():
    old_T, behaviour_T = given()
    made = correction_weights(Correction(mode="none"), old_T, behaviour_T, torch.tensor(LENGTHS))
    assert made.tolist() == [1.0] * sum(LENGTHS)


def test_the_default_is_truncated_importance_sampling_at_two():
    old_T, behaviour_T = given()
    made = correction_weights(Correction(), old_T, behaviour_T, torch.tensor(LENGTHS))
    assert torch.equal(made, (old_T - behaviour_T).exp().clamp(max=2.0))


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_a_product_that_overflows_is_bounded_not_a_nan(mode):
    gap_T = torch.full((200,), 1.0)
    settings = Correction(level="sequence", mode=mode)
    made = correction_weights(settings, gap_T, torch.zeros(200), torch.tensor([200]))
    assert made.unique().tolist() == ([2.0] if mode == "truncate" else [0.0])


@pytest.mark.parametrize(("mode", "mean"), [("truncate", (0.5 + 1 + 1 + 2) / 4), ("mask", 0.5)])
def test_figures_tell_the_mean_weight_and_the_share_out_of_bounds(mode, mean):
    ratio_T = torch.tensor([0.25, 1.0, 1.0, 3.0])
    settings = Correction(mode=mode, low=0.5, high=2.0)
    told = correction_figures(settings, ratio_T.log(), torch.zeros(4), torch.tensor([3, 1]))
    assert told == {"correction_mean": pytest.approx(mean), "correction_outside": 0.5}


@pytest.mark.parametrize("bounds", [{"high": 0.5}, {"low": 1.5}, {"low": 3.0, "high": 2.0}])
def test_bounds_that_leave_out_agreement_are_refused(bounds):
    with pytest.raises(ValidationError, match="use low <= 1 <= high"):
        Correction(**bounds)
