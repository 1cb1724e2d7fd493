"""A critic as configuration: a role of its own, published within its policy's folder."""

import json

import pytest

from serl.config.files import ConfigError
from serl.run.attempt import Attempt
from serl.run.rundir import Run
from serl.stages.kind import World
from serl.stages.work import policy_dir
from tests.conftest import SMALL, run_config

ROLLOUT = {
    "prompts": 4, "samples": 4, "turns": 2, "reward": {"kind": "verified"},
    "sampling": {"temperature": 1.0, "max_tokens": 8},
    "problems": {"per_round": 8, "source": {"kind": "jsonl", "path": "p.jsonl", "gold": "answer"}},
}  # fmt: skip


def tree(objective: dict, **train: object) -> dict:
    made = json.loads(json.dumps({k: SMALL[k] for k in ("name", "seed", "base", "prompts", "engine")}))
    section = {"objective": objective, "optimizer": {"lr": 1e-4}, "rollout": ROLLOUT} | train
    score = {"shards": 1, "benchmarks": ["gsm8k"], "max_tokens": 8}
    return made | {"rounds": 2, "stages": ["train", "score"], "train": section, "score": score}


def test_the_next_round_goes_on_with_the_critic_of_this_one():
    config = run_config(tree({"kind": "ppo"}))
    first, second = config.stage(1, "train"), config.stage(2, "train")
    assert first.weights == {"policy": "", "critic": "critic"}
    assert config.trained(first, "critic") is None and config.trained(second, "critic") is first
    assert run_config(tree({"kind": "grpo"})).stage(1, "train").weights == {"policy": ""}


def test_its_weights_are_where_the_policys_are(tmp_path):
    run = Run.create(
        tmp_path / "runs/small", run_config(tree({"kind": "ppo", "critic": {"role": "value"}})), "test"
    )
    (shard,) = run.shards(1, "train")
    attempt = Attempt(run, shard, id="1", inputs={})
    (attempt.folder / "built/critic").mkdir(parents=True)
    (attempt.folder / "built/critic/config.json").write_text("{}")
    manifest = attempt.publish_folder(attempt.folder / "built", "policy", {})
    folder, digest = policy_dir(run, 1, "value")
    assert (folder / "config.json").read_text() == "{}" and digest == manifest.digest


def test_a_critic_doubles_what_a_training_leaves_and_holds():
    world = World(num_parameters=10**9)
    plain, with_critic = (
        (s := run_config(tree({"kind": k})).stage(1, "train")).kind.bounds(
            s, run_config(tree({"kind": k})), world
        )
        for k in ("grpo", "ppo")
    )
    assert with_critic.bytes - plain.bytes > 4 * 10**9
    assert with_critic.temporary_bytes - plain.temporary_bytes > 3 * 12 * 10**9 - 1


@pytest.mark.parametrize(
    ("critic", "sentence"),
    [
        (
            {"role": "policy"},
            "objective.critic.role policy: that is whose weights the policy moves; use another",
        ),
        (
            {"init": "reward"},
            r"train.objective.critic.init reward: no stage before it trains that role; use policy",
        ),
        ({"lr": 0.0}, "objective.critic.lr: 0.0: input should be greater than 0"),
    ],
)
def test_a_critic_that_cannot_be_is_refused(critic, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run_config(tree({"kind": "ppo", "critic": critic}))


def test_a_policy_cannot_start_from_a_critic():
    made = tree({"kind": "ppo"})
    other = made["train"] | {"role": "other", "init": "critic", "objective": {"kind": "grpo"}}
    phase = {
        "rounds": 1,
        "stages": ["train", "more"],
        "train": made["train"],
        "more": other | {"kind": "train"},
    }
    flat = {k: made[k] for k in ("name", "seed", "base", "prompts", "engine")} | {"phases": {"learn": phase}}
    with pytest.raises(
        ConfigError, match="init critic: train gives the role critic a head of one number a text"
    ):
        run_config(flat)


def test_rollouts_of_a_state_are_not_rewarded_by_beating_each_other():
    made = tree({"kind": "vine_ppo"})
    made["train"]["rollout"]["reward"] = {"kind": "model", "role": "critic", "of": "pair"}
    with pytest.raises(
        ConfigError, match="rollout.reward.of pair: rollouts of one state win half of the pairs"
    ):
        run_config(made)
