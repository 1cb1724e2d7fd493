"""A policy that writes its questions: what does not fit together, and what a proposal is worth."""

import copy
from dataclasses import replace

import pytest

from serl.config.files import ConfigError
from serl.records import PROPOSAL, Group
from serl.stages.train.proposing import agreed, proposed_questions
from tests.conftest import SMALL, run_config

PROPOSER = {"reward": {"kind": "learnability"}, "proposals": 4, "max_tokens": 64}
ROLLOUT = {"prompts": 8, "turns": 2, "sampling": {"temperature": 1.0, "max_tokens": 64}}


def tree(rollout: dict, **train) -> dict:
    made = copy.deepcopy(SMALL) | {"stages": ["train"]}
    for name in ("propose", "curate", "respond"):
        del made[name]
    made["train"] |= {"rollout": ROLLOUT | {"proposer": PROPOSER} | rollout} | train
    return made


def test_a_training_with_a_proposer_needs_no_stage_before_it():
    config = run_config(tree({}))
    stage = config.stage(1, "train")
    assert stage.kind.num_questions(stage, config) == 16 and stage.kind.num_turns(stage, config) == 2
    assert stage.kind.depends(stage, config)["seeds"] == config.seeds


PROBLEMS = {"source": {"kind": "jsonl", "path": "x.jsonl"}, "per_round": 8}
MAX_RL = {"objective": {"kind": "max_rl"}}


@pytest.mark.parametrize(
    ("rollout", "train", "sentence"),
    [
        ({"prompts": 6}, {}, r"prompts 6: no multiple of proposer.proposals 4"),
        ({"turns": None}, {}, r"turns: say how many; a proposer never runs out"),
        ({"refill": True}, {}, r"refill: a turn asks what was proposed in it, once"),
        ({"problems": PROBLEMS}, {}, r"rollout.problems: give it if and only if .* no proposer writes them"),
        ({}, MAX_RL, r"proposer.reward.invalid -1: max_rl needs rewards from 0 up; set it to 0"),
        ({"reward": {"kind": "scrl"}}, MAX_RL, r"rollout.reward.kind scrl: max_rl needs rewards from 0 up"),
        ({"votes": 8}, {}, r"votes 8: at least samples 16"),
        ({"votes": 32, "vote": "array"}, {}, r"votes 32: .* with vote: fresh"),
    ],
)
def test_what_does_not_fit_is_a_sentence(rollout, train, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run_config(tree(rollout, **train))


def test_without_seeds_there_is_nothing_to_begin_with():
    made = tree({})
    del made["seeds"]
    with pytest.raises(ConfigError, match=r"rollout.proposer: needs seed problems"):
        run_config(made)


def group(labels, **changes) -> Group:
    made = Group(
        id="t0001-p0002", role="train", question="", gold=None, prompt_ids=(), completions=(), labels=labels,
        answers=("one", "two", "three", None)[: len(labels)], winner=None, tie=False, undecided=0,
        agreement=0.0, margin=0.0, winner_correct=None, rewards=(),
    )  # fmt: skip
    return replace(made, **changes)


def test_a_share_is_of_the_commonest_answer_and_nobody_agrees_with_himself():
    assert agreed(group((0, 0, 1, None))) == 0.5
    assert agreed(group((0, 0, 1, 1))) == 0.5, "a tie is as undecided as can be"
    assert agreed(group((0, 1, 2, None))) == 0.0
    assert agreed(group((None,) * 4)) == 0.0


def test_valid_proposals_alone_are_asked():
    asked = proposed_questions([group((0, None, 2, None), role=PROPOSAL)])
    assert [(p.id, p.question) for p in asked] == [("t0001-p0002-00", "one"), ("t0001-p0002-02", "three")]
