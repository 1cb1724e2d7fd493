"""Each objective against a second implementation: plain Python loops over the official formulas, and stored results."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from serl.config.objectives import Correction, Grpo, ReinforcePP, Rloo
from serl.learning.algorithms import LogProbs, advantages, columns, policy_loss

GOLDEN = Path(__file__).parent.parent / "golden" / "advantages.json"
KINDS = {"reinforce_pp": ReinforcePP(kl=0.05), "rloo": Rloo(kl=0.05), "grpo": Grpo(kl=0.05)}


def problem(
    num_groups: int, num_answers: int, seed: int
) -> tuple[np.ndarray, list[int], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, num_groups * num_answers).tolist()
    logp = -rng.exponential(1.0, sum(lengths))
    return (
        rng.integers(0, 2, (num_groups, num_answers)).astype(float),
        lengths,
        logp,
        logp + 0.3 * rng.standard_normal(sum(lengths)),
    )


def oracle(
    kind: str, rewards: np.ndarray, lengths: list[int], logp: np.ndarray, ref: np.ndarray, beta: float
) -> list[float]:
    """Advantages token by token, one sequence at a time, as the official implementation defines them."""
    flat, returns, start = [], [], 0
    for group in rewards:
        for i, r in enumerate(group):
            others = [x for j, x in enumerate(group) if j != i]
            match kind:
                case "grpo":
                    mean = sum(group) / len(group)
                    sd = math.sqrt(sum((x - mean) ** 2 for x in group) / (len(group) - 1))
                    flat.append((r - mean) / (sd + 1e-9))
                case "rloo":
                    flat.append(r - sum(others) / len(others))
                case "reinforce_pp":
                    flat.append(r)
    for length, r in zip(lengths, flat):
        tokens = [0.0] * length
        ahead = 0.0
        for t in reversed(range(length)):
            if kind == "grpo":
                tokens[t] = r
                continue
            earned = -beta * (logp[start + t] - ref[start + t])
            if t == length - 1:
                earned += min(10.0, max(-10.0, r))
            ahead += earned
            tokens[t] = ahead
        returns += tokens
        start += length
    if kind == "grpo":
        return returns
    mean = sum(returns) / len(returns)
    variance = sum((g - mean) ** 2 for g in returns) / len(returns)
    return [(g - mean) / math.sqrt(max(variance, 1e-8)) for g in returns]


def ours(
    kind: str, rewards: np.ndarray, lengths: list[int], logp: np.ndarray, ref: np.ndarray
) -> torch.Tensor:
    old_T, ref_T = torch.tensor(logp, dtype=torch.float32), torch.tensor(ref, dtype=torch.float32)
    given = LogProbs(old_T=old_T, ref_T=ref_T, behaviour_T=old_T, length_S=torch.tensor(lengths))
    return advantages(KINDS[kind], torch.tensor(rewards, dtype=torch.float32), given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_advantages_equal_the_slow_oracle(kind, seed):
    given = problem(num_groups=6, num_answers=5, seed=seed)
    assert ours(kind, *given).tolist() == pytest.approx(oracle(kind, *given, beta=0.05), abs=2e-6)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda c: c["kind"])
def test_advantages_equal_the_stored_ones(case):
    made = ours(
        case["kind"],
        np.array(case["rewards"]),
        case["lengths"],
        np.array(case["logp"]),
        np.array(case["ref"]),
    )
    assert made.tolist() == pytest.approx(case["advantages"], abs=2e-6)


def test_every_objective_has_a_stored_result():
    assert {case["kind"] for case in json.loads(GOLDEN.read_text())} == set(KINDS)


def test_only_grpo_has_its_kl_in_the_loss():
    assert {name: policy_loss(kind).kl for name, kind in KINDS.items()} == {
        "reinforce_pp": 0.0,
        "rloo": 0.0,
        "grpo": 0.05,
    }


def test_importance_correction_scales_the_advantage_and_is_capped():
    rewards, lengths, logp, _ = problem(num_groups=2, num_answers=3, seed=0)
    old_T = torch.tensor(logp, dtype=torch.float32)
    gap_T = torch.linspace(-1, 1, len(old_T))
    given = LogProbs(old_T=old_T, ref_T=old_T, behaviour_T=old_T - gap_T, length_S=torch.tensor(lengths))
    plain, corrected = (
        columns(KINDS["rloo"], torch.tensor(rewards), given, "token", correction)["advantage"]
        for correction in (None, Correction(high=1.5))
    )
    torch.testing.assert_close(corrected, plain * gap_T.exp().clamp(max=1.5))


def test_sequence_mean_weights_sum_to_one_in_every_sequence():
    rewards, lengths, logp, ref = problem(num_groups=2, num_answers=3, seed=0)
    given = LogProbs(
        old_T=torch.tensor(logp),
        ref_T=torch.tensor(ref),
        behaviour_T=torch.tensor(logp),
        length_S=torch.tensor(lengths),
    )
    weight_T = columns(KINDS["grpo"], torch.tensor(rewards), given, "sequence", None)["weight"]
    assert [w.sum().item() for w in weight_T.split(lengths)] == pytest.approx([1.0] * 6)
