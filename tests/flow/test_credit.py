"""Trainings that give single tokens their credit, whole, with the real vLLM and the real DeepSpeed on two ranks: what a turn
learned about its answers' states is committed with them, and a training that is killed ends like an undisturbed one.
"""

import json
import os

import pytest
import torch
import transformers
import yaml
from chain import kill, manifests, open_run, run_verb, tasks_of, verb, wait_for
from test_turns import PROMPTS, RUN, SAMPLES, data, turns_of  # noqa: F401 (a fixture)

from serl.stages.work import policy_dir

pytestmark = pytest.mark.timeout(900)
TURNS = 3
ROUNDS = {"ppo": 2, "vine": 1}  # a critic goes on in the next round
METHODS = {
    "ppo": {
        "kind": "ppo",
        "lam": 0.9,
        "kl": 0.05,
        "adaptive": {"target": 0.01, "horizon": 100},
        "critic": {"lr": 2e-3},
    },
    "vine": {
        "kind": "vine_ppo",
        "rollouts": 3,
        "steps": {"kind": "pattern", "pattern": "[a-m]", "min_tokens": 2},
    },
}


def write(data, name: str, method: str):  # noqa: F811
    tree = json.loads(json.dumps(RUN)) | {"name": name}
    learn = tree["phases"]["learn"]
    learn["rounds"] = ROUNDS[method]
    learn["train"]["objective"] = METHODS[method]
    learn["train"]["rollout"]["turns"] = TURNS
    path = data / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module", params=METHODS)
def calm(data, request):  # noqa: F811
    code, said = run_verb("launch", str(write(data, f"calm-{request.param}", request.param)), data=data)
    assert code == 0, said
    return request.param, open_run(data, f"calm-{request.param}")


def test_a_turn_tells_what_its_credit_came_from(calm):
    method, run = calm
    told = [t for t in turns_of(run) if t["round"] == 1]
    (manifest,) = run.complete(1, "train")
    assert [t["turn"] for t in told] == [1, 2, 3]
    if method == "ppo":
        assert all(t["value_error"] > 0.0 for t in told)
        weights = [t["kl_weight"] for t in told]
        assert weights[0] == METHODS["ppo"]["kl"]
        # the policy is at its start: nearer than the target, by the most that counts, over 12 answers
        assert weights[1] == pytest.approx(weights[0] * (1 - 0.2 * PROMPTS * SAMPLES / 100))
    if method == "vine":
        states = sum(t["states"] for t in told)
        assert manifest.counts["states"] == states > TURNS * 3, "more than the questions have been valued"
        assert manifest.counts["rollouts"] == 3 * states
        assert 0 <= manifest.counts["answers_whole"] < manifest.counts["samples"], "some answers have steps"


def test_a_critic_is_published_with_its_policy_and_goes_on_in_the_next_round(calm):
    method, run = calm
    if method != "ppo":
        pytest.skip("no critic")
    first, second = (run.stage_dir(r, "train") / "policy" for r in (1, 2))
    heads = []
    for folder in (first, second):
        critic = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "critic")
        policy = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert critic.config.num_labels == 1
        assert not torch.equal(critic.model.embed_tokens.weight, policy.model.embed_tokens.weight)
        heads.append(critic.score.weight.detach())
    assert policy_dir(run, 1, "critic")[0] == first / "critic"
    (manifest,) = run.complete(1, "train")
    assert "policy/critic/config.json" in {f.name for f in manifest.files}, "its files are in the manifest"
    assert manifest.inputs["critic"] == manifest.inputs["policy"], "it began as the policy did"
    again = run.complete(2, "train")[0].inputs
    assert again["critic"] == manifest.digest
    # a new head would be as far from the first as any two random ones
    assert (heads[1] - heads[0]).norm() < 0.3 * heads[0].norm()


def test_killed_it_ends_with_the_same_weights_and_samples_nothing_twice(calm, data):  # noqa: F811
    method, run = calm
    if method == "vine" and not os.environ.get("SERL_SLOW"):
        pytest.skip("set SERL_SLOW=1 to run it")
    name = f"killed-{method}"
    parts = data / "runs" / name / "round_001/train/shard_00000"
    launch = verb("launch", str(write(data, name, method)), data=data)
    wait_for(lambda: list(parts.glob("part_00001.*")), "turn 2 to be sampled")
    for pid in [*tasks_of(launch.process.pid, "train"), launch.process.pid]:
        kill(pid)
    launch.process.wait()
    code, said = run_verb("resume", name, data=data)
    assert code == 0, said
    killed = open_run(data, name)
    assert {k: m.digest for k, m in manifests(killed).items()} == {
        k: m.digest for k, m in manifests(run).items()
    }
    sampled = [(t["round"], t["turn"]) for t in turns_of(killed) if t["transfer_s"] > 0.0]
    assert len(set(sampled)) == len(sampled), "a committed turn is not sampled again"
