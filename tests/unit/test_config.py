"""The schema: frozen, strict, coherent, and with a digest that depends on meaning alone."""

import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serl.config.read import load_run
from serl.config.run import RunConfig
from tests.conftest import SMALL, phased, run_config

SCRATCH = {
    "kind": "scratch",
    "architecture": {"hidden": 32, "layers": 1, "heads": 1, "intermediate": 8},
    "corpus": {"documents": 10},
    "train": {"optimizer": {"lr": 0.1}, "batch_tokens": 100},
}
PROBLEMS = {"per_round": 2, "source": {"kind": "jsonl", "path": "x"}}


def config(tree: dict) -> RunConfig:
    return run_config(tree)


def shuffled(value, rng: random.Random):
    if isinstance(value, dict):
        return {k: shuffled(value[k], rng) for k in rng.sample(list(value), len(value))}
    return value


@given(st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_keys(rng):
    assert config(shuffled(SMALL, rng)).digest() == config(SMALL).digest()


def test_the_digest_is_kept_by_a_round_trip_and_by_writing_defaults_out(small_tree):
    c = config(small_tree)
    assert config(c.model_dump(mode="json")).digest() == c.digest()
    small_tree["curate"]["max_rouge_l"] = 0.7
    small_tree["respond"]["reward"] = {"kind": "majority"}
    assert config(small_tree).digest() == c.digest()


def test_a_whole_number_and_its_float_are_one_value(small_tree):
    small_tree["train"]["objective"]["kl"] = 0
    a = config(small_tree).digest()
    small_tree["train"]["objective"]["kl"] = 0.0
    assert config(small_tree).digest() == a


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(None, "seed", 2), ("train", "epochs", 2), ("respond", "samples", 5), ("seeds", "path", "other")],
)
def test_the_digest_changes_with_every_value(small_tree, section, key, value):
    before = config(small_tree).digest()
    (small_tree[section] if section else small_tree)[key] = value
    assert config(small_tree).digest() != before


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        config(SMALL).seed = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"stages": ["curate", "propose", "respond", "train"]},
            "curate: no stage before it in the round writes candidates",
        ),
        ({"stages": ["propose", "curate", "respond", "train", "train"]}, "train is listed twice"),
        (
            {"stages": ["corpus", "propose", "curate", "respond", "train"]},
            "corpus is listed in stages but has no section",
        ),
        (
            {"score": {"shards": 1, "benchmarks": ["x"], "max_tokens": 8}},
            "score is not listed in stages but has a section",
        ),
        ({"train": None}, "train is listed in stages but has no section"),
        (
            {"stages": ["respond", "train"], "propose": None, "curate": None},
            "respond.problems: give it if and only if no stage of the round writes instructions",
        ),
        ({"respond": SMALL["respond"] | {"problems": PROBLEMS}}, "respond.problems: give it if and only if"),
        (
            {"stages": ["propose", "respond", "train"], "curate": None},
            "respond.problems: give it if and only if no stage of the round writes instructions",
        ),
        ({"seeds": None}, "propose: needs seed problems"),
        ({"seeds": {"kind": "corpus"}}, "only where base.kind is scratch"),
        (
            {"rounds": 1, "stages": ["propose", "curate"], "respond": None, "train": None},
            "nothing is trained, so that there is only round 0",
        ),
        (
            {"respond": SMALL["respond"] | {"anchors": 3}, "seeds": {"kind": "jsonl", "path": "x"}},
            "respond.anchors 3: the seeds have no gold field",
        ),
        (
            {"respond": SMALL["respond"] | {"reward": {"kind": "verified"}}},
            "verified needs respond.problems with a gold field",
        ),
        (
            {
                "stages": [*SMALL["stages"], "score"],
                "score": {"shards": 1, "benchmarks": ["x", "y"], "validation": ["y"], "max_tokens": 8},
            },
            "score: y named twice; a benchmark is either reported",
        ),
        (
            {
                "stages": [*SMALL["stages"], "score"],
                "score": {"shards": 1, "benchmarks": ["x"], "preamble": {"y": "1+1? 2"}, "max_tokens": 8},
            },
            "score.preamble: y is not asked",
        ),
        (
            {"train": SMALL["train"] | {"reference": "previous"}},
            r"the KL in their reward \(reinforce_pp\) would always be 0",
        ),
        (
            {"engine": {"max_model_len": 64}},
            "propose.sampling.max_tokens 64: engine.max_model_len 64 leaves no room",
        ),
        ({"base": SCRATCH, "engine": {"max_model_len": 1024}}, "the base model has 512 positions"),
        (
            {"base": SCRATCH | {"architecture": SCRATCH["architecture"] | {"heads": 4}}},
            "hidden 32 over 4 heads is 8 each; vLLM needs one of 32, 64",
        ),
        (
            {"base": SCRATCH | {"architecture": SCRATCH["architecture"] | {"vocabulary": 258}}},
            "greater than or equal to 259",
        ),
        (
            {"base": SCRATCH, "seeds": {"kind": "corpus"}, "propose": SMALL["propose"] | {"seed_shots": 101}},
            "propose.seed_shots 101: the corpus has 100",
        ),
        (
            {"base": SCRATCH, "seeds": {"kind": "corpus"}, "respond": SMALL["respond"] | {"anchors": 101}},
            "respond.anchors 101: the corpus has 100",
        ),
        ({"quality": {"min_words": 151}}, "min_words is above max_words"),
        ({"rounds": 1000}, "less than or equal to 999"),  # names of jobs and folders have three digits
        (
            {"seed": 2**32},
            "less than 4294967296",
        ),  # torch takes 64 bits, and each round has a seed of its own
        ({"train": SMALL["train"] | {"optimizer": {"lr": 1e-4, "betas": [0.9, 1.0]}}}, "less than 1"),
        (
            {"respond": SMALL["respond"] | {"sampling": {"temperature": 0.0, "max_tokens": 8}}},
            "equal answers make no vote",
        ),
    ],
)
def test_what_does_not_fit_together_is_said_in_a_sentence(small_tree, change, message):
    with pytest.raises(ValueError, match=message):
        config(small_tree | change)


@pytest.mark.parametrize(
    "change",
    [
        {"base": SCRATCH, "seeds": {"kind": "corpus"}, "respond": SMALL["respond"] | {"anchors": 3}},
        {"rounds": 0},
        {"train": SMALL["train"] | {"reference": "previous", "objective": {"kind": "grpo"}}},
        {"train": SMALL["train"] | {"reference": "previous", "objective": {"kind": "rloo", "kl": 0}}},
        {
            "stages": ["respond", "train"],
            "propose": None,
            "curate": None,
            "respond": SMALL["respond"] | {"problems": PROBLEMS},
        },
        {
            "rounds": 0,
            "stages": ["score"],
            "propose": None,
            "curate": None,
            "respond": None,
            "train": None,
            "score": {"shards": 1, "benchmarks": ["x"], "max_tokens": 8},
        },
        {"respond": SMALL["respond"] | {"reward": {"kind": "random"}}},
    ],
)
def test_what_fits_together_is_accepted(small_tree, change):
    config(small_tree | change)


@pytest.mark.parametrize(
    "sampling",
    [{"top_p": 0.0}, {"top_p": 1.1}, {"presence_penalty": 2.1}, {"temperature": -1.0}, {"max_tokens": 0}],
)
def test_what_the_sampler_would_refuse_is_refused_before_a_model_loads(small_tree, sampling):
    small_tree["propose"]["sampling"] |= sampling
    with pytest.raises(ValueError, match="sampling"):
        config(small_tree)


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({}, None),
        ({"max_steps": 10}, 40),
        ({"max_steps": 10, "epochs": 3}, 13),
        ({"max_steps": 1, "batch_samples": 1}, 1),
    ],
)
def test_a_limit_of_steps_is_one_of_whole_groups(small_tree, changes, groups):
    """It used to cut the shuffled answers: baselines and normalisation then saw answers, about half of most groups, that nobody was trained on."""
    small_tree["train"] |= changes
    assert config(small_tree).stage(1, "train").section.max_groups(4) == groups


# ------------------------------------------------------------------------------------------------ phases
def in_phases(**phases: dict) -> RunConfig:
    """Phases of the small configuration's stages: of each what differs."""
    flat = {k: v for k, v in phased(SMALL).items() if k != "phases"}
    stages = phased(SMALL)["phases"]["self_play"]
    return run_config(flat | {"phases": {name: stages | changes for name, changes in phases.items()}})


def test_rounds_are_counted_through_the_phases_and_each_has_its_own_stages():
    quick = {"stages": ["respond", "train"], "propose": None, "curate": None}
    respond = SMALL["respond"] | {"problems": PROBLEMS}
    c = in_phases(first={"rounds": 2}, second=quick | {"rounds": 1, "respond": respond})
    assert c.rounds == 3
    assert [s.name for s in c.at(2)] == ["propose", "curate", "respond", "train"]
    assert [(s.name, s.phase) for s in c.at(3)] == [("respond", "second"), ("train", "second")]
    assert c.phase(3)[0] == "second" and c.phase(3)[2] == 3


def test_a_role_is_what_its_last_training_published():
    reward = SMALL["train"] | {"role": "reward"}
    c = in_phases(
        seed={"rounds": 1, "train": reward},
        loop={"rounds": 2},
        last={"rounds": 1, "respond": SMALL["respond"] | {"role": "reward"}},
    )
    assert c.trained(c.stage(2, "propose"), "policy") is None, "round 1 trained another role"
    assert c.trained(c.stage(3, "propose"), "policy") == c.stage(2, "train")
    assert c.trained(c.stage(4, "respond"), "reward") == c.stage(1, "train")
    assert c.training(1) is None and c.training(1, "reward") == c.stage(1, "train")


def test_stages_of_one_kind_have_names_of_their_own():
    again = SMALL["respond"] | {"kind": "respond", "samples": 8}
    stages = ["propose", "curate", "respond", "again", "train"]
    c = in_phases(loop={"stages": stages, "again": again, "train": SMALL["train"] | {"data": "again"}})
    training = c.stage(1, "train")
    assert [s.name for s in training.kind.reads(training, c)] == ["again"]
    assert c.stage(1, "again").kind == c.stage(1, "respond").kind


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (
            {"loop": {"until": "settled"}},
            r"loop: until settled: no count of its stages; its stages publish idle",
        ),
        (
            {"loop": {"respond": SMALL["respond"] | {"role": "judge"}}},
            r"loop\.respond\.role judge: no stage before it trains that role; roles so far: policy",
        ),
        (
            {"loop": {"train": SMALL["train"] | {"init": "critic"}}},
            r"loop\.train.*critic: no stage before it trains that role",
        ),
        (
            {"loop": {"train": SMALL["train"] | {"data": "answers"}}},
            r"loop\.train\.data answers: no stage of that name before it in the round writes groups",
        ),
        (
            {
                "loop": {
                    "stages": [*SMALL["stages"], "more"],
                    "more": SMALL["train"] | {"kind": "train", "data": "respond"},
                }
            },
            r"loop: train and more both train the role policy in one round",
        ),
        (
            {"loop": {"stages": [*SMALL["stages"], "reflect"], "reflect": {}}},
            r"loop\.reflect: 'reflect' is no kind of stage; choose one of .*corpus, curate",
        ),
        ({"loop": {"carry": "always"}}, r"loop\.carry: 'always'"),
        ({"loop": {"rounds": 600}, "more": {"rounds": 600}}, r"phases: 1200 rounds in all; at most 999"),
        ({}, r"phases: none"),
    ],
)
def test_what_does_not_fit_a_phase_is_said_in_a_sentence(phases, message):
    with pytest.raises(ValueError, match=message):
        in_phases(**phases)


def test_an_override_may_leave_out_what_is_plain(tmp_path):
    tree = phased(SMALL)
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    short = load_run(tmp_path / "one.yaml", ["train.epochs=3", "rounds=5"])
    assert short == load_run(tmp_path / "one.yaml", ["phases.self_play.train.epochs=3", "self_play.rounds=5"])
    assert short.stage(1, "train").section.epochs == 3 and short.rounds == 5
    with pytest.raises(ValueError, match=r"phases\.selfplay\.rounds: there is no phase 'selfplay'; .* self_play"):
        load_run(tmp_path / "one.yaml", ["phases.selfplay.rounds=2"])
    tree["phases"]["more"] = tree["phases"]["self_play"]
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    both = r"phases\.self_play\.train\.epochs or phases\.more\.train\.epochs"
    with pytest.raises(ValueError, match=both):
        load_run(tmp_path / "two.yaml", ["train.epochs=3"])


def test_a_run_that_is_cut_short_keeps_its_first_rounds():
    c = in_phases(first={"rounds": 2}, second={"rounds": 3})
    assert c.cut(3).rounds == 3 and c.cut(3).stages == c.stages[: len(c.cut(3).stages)]
    assert c.cut(1).rounds == 1 and c.cut(9) == c


def test_a_schedule_that_goes_on_through_a_phase_has_a_length():
    carried = {"loop": {"rounds": 2, "carry": "phase"}}
    with pytest.raises(
        ValueError, match=r"loop\.train\.optimizer\.schedule cosine: carry: phase needs to know"
    ):
        in_phases(**carried)
    for fine in ({"max_steps": 5}, {"optimizer": {"lr": 1e-4, "schedule": "constant"}}):
        in_phases(loop=carried["loop"] | {"train": SMALL["train"] | fine})


TURNS = {"prompts": 4, "samples": 4, "sampling": {"temperature": 1.0, "max_tokens": 8}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vote": "array", "problems": PROBLEMS}, r"rollout\.problems: give it if and only if no stage"),
        (
            {"sampling": TURNS["sampling"] | {"top_p": 0.9}},
            r"rollout\.sampling\.top_p 0\.9: what is trained on must be",
        ),
        (
            {"sampling": TURNS["sampling"] | {"temperature": 0.0}},
            r"rollout\.sampling\.temperature 0: equal answers",
        ),
        ({"max_asked": 3}, r"max_asked 3: less than prompts 4"),
        ({"prompts": 0}, r"rollout\.prompts: 0"),
        (
            {"reward": {"kind": "python", "path": "module"}},
            r"write package.module:function, or file.py:function",
        ),
    ],
)
def test_what_does_not_fit_a_training_in_turns_is_said_in_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        in_phases(loop={"train": SMALL["train"] | {"rollout": TURNS | change}})


def test_a_training_in_turns_asks_what_the_round_brings():
    train = SMALL["train"] | {"rollout": TURNS}
    voted = in_phases(loop={"train": train})
    alone = {"stages": ["train"], "propose": None, "curate": None, "respond": None}
    given = in_phases(
        loop=alone | {"rounds": 2, "train": train | {"rollout": TURNS | {"problems": PROBLEMS}}}
    )
    reads = {name: [s.job for s in c.stage(2, "train").kind.reads(c.stage(2, "train"), c)]
             for name, c in (("voted", voted), ("given", given))}  # fmt: skip
    assert reads == {"voted": ["r002-respond"], "given": ["r001-train"]}


def test_answers_that_are_trained_on_are_sampled_from_the_policy_itself():
    narrow = SMALL["respond"]["sampling"] | {"top_p": 0.9}
    with pytest.raises(
        ValueError, match=r"train: its answers are those of respond, whose sampling\.top_p 0\.9"
    ):
        in_phases(loop={"respond": SMALL["respond"] | {"sampling": narrow}})
