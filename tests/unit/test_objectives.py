"""Objectives as configuration: what a YAML gives, and the sentence for switches that contradict."""

import math

import pytest

from serl.config.files import ConfigError, load
from serl.config.objectives import FIELD_BOUNDS, Correction
from serl.stages.train.section import Train

KINDS = {
    "reinforce_pp": (0.2, None, 1e-3),
    "rloo": (0.2, None, 1e-3),
    "grpo": (0.2, None, 1e-3),
    "reinforce_pp_baseline": (0.2, None, 1e-3),
    "dapo": (0.2, 0.28, 0.0),
    "gspo": (3e-4, 4e-4, 0.0),
    "max_rl": (0.2, None, 0.0),
}


def read(tmp_path, text: str) -> Train:
    path = tmp_path / "train.yaml"
    path.write_text(f"optimizer: {{lr: 1e-6}}\n{text}\n")
    return load(Train, path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_is_the_method_of_its_paper(tmp_path, kind):
    objective = read(tmp_path, f"objective: {{kind: {kind}}}").objective
    assert (objective.clip, objective.clip_high, objective.kl) == KINDS[kind]
    assert objective.dual_clip is None


def test_options_of_a_kind_are_its_own(tmp_path):
    made = read(tmp_path, "objective: {kind: dapo, overlong: {longest: 512, buffer: 128}, dual_clip: 3.0}")
    assert (made.objective.overlong.penalty, made.objective.dual_clip) == (1.0, 3.0)
    assert read(tmp_path, "objective: {kind: cispo, cap: 8.0}").objective.cap == 8.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("objective: {kind: dr_grpo}", r"objective.longest: missing; add this key"),
        ("objective: {kind: cispo, clip: 0.2}", r"objective.clip: unknown key \(value 0.2\); "),
        (
            "objective: {kind: grpo, dual_clip: 1.0}",
            r"objective.dual_clip: 1.0: input should be greater than 1",
        ),
        (
            "objective: {kind: dapo, overlong: {longest: 9, buffer: 10}}",
            r"objective.overlong: buffer 10 is longer than the longest answer, 9 tokens",
        ),
        ("objective: {kind: gspo}\nloss_mean: token", r"gspo weighs by sequence itself; take loss_mean away"),
        ("objective: {kind: dapo}\nloss_mean: sequence", r"dapo weighs by token itself"),
        (
            "objective: {kind: none}",
            r"objective.kind: 'none' is unknown; choose one of 'reinforce_pp', 'rloo',",
        ),
        ("objective: {kind: ppo}", r"objective ppo: it values answers under the weights .*; give `rollout`"),
        ("objective: {kind: vine_ppo}", r"objective vine_ppo: it values answers .*; give `rollout`"),
        ("objective: {kind: vine_ppo, rollouts: 0}", r"objective.rollouts: 0: input should be greater than"),
        ("objective: {kind: ppo, gamma: 1.01}", r"objective.gamma: 1.01: input should be less than or equal"),
        ("objective: {kind: ppo, lam: -0.1}", r"objective.lam: -0.1: input should be greater than or equal"),
    ],
)
def test_contradictions_are_a_sentence(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read(tmp_path, text)


def test_a_stored_configuration_is_read_back(tmp_path):
    made = read(tmp_path, "objective: {kind: gspo}")
    assert Train.model_validate_json(made.model_dump_json()) == made


def test_a_mean_that_says_the_same_is_no_contradiction(tmp_path):
    assert read(tmp_path, "objective: {kind: gspo}\nloss_mean: sequence").loss_mean == "sequence"


@pytest.mark.parametrize(
    ("kind", "refused"), [("rloo", True), ("reinforce_pp_baseline", False), ("dapo", False)]
)
def test_only_a_kl_in_the_reward_needs_a_reference_other_than_the_sampler(tmp_path, kind, refused):
    text = f"objective: {{kind: {kind}, kl: 0.01}}\nreference: previous"
    if refused:
        with pytest.raises(ConfigError, match="would always be 0"):
            read(tmp_path, text)
    else:
        assert read(tmp_path, text).reference == "previous"


def test_bounds_are_the_fields_until_they_are_given():
    assert Correction(level="geometric", mode="mask").bounds == (0.99, 1.01)
    assert Correction(mode="mask", high=2.0).bounds == (0.5, 2.0)
    assert Correction(mode="mask", low=0.0).bounds == (0.0, 5.0)
    assert all(low <= 1 <= high for low, high in FIELD_BOUNDS.values())


def test_a_training_is_corrected_unless_it_says_otherwise(tmp_path):
    grpo = "objective: {kind: grpo}"
    assert read(tmp_path, grpo).correction == Correction()
    assert read(tmp_path, f"{grpo}\ncorrection: {{mode: none}}").correction.bounds == (0.0, math.inf)
    made = read(tmp_path, f"{grpo}\ncorrection: {{level: geometric, mode: mask}}").correction
    assert made.bounds == (0.99, 1.01)


def test_no_correction_has_no_bounds(tmp_path):
    with pytest.raises(ConfigError, match="correction: mode none: .*take low and high away"):
        read(tmp_path, "objective: {kind: grpo}\ncorrection: {mode: none, high: 2.0}")


def test_the_key_of_before_is_told_what_it_is_now(tmp_path):
    with pytest.raises(ConfigError, match=r"train.yaml: importance_cap: .*; write correction: \{high: CAP\}, or"):
        read(tmp_path, "objective: {kind: grpo}\nimportance_cap: 3.0")
