"""Trainings that give single tokens their credit, whole, with the real vLLM and the real DeepSpeed on two ranks: what a turn
learned about its answers' states is committed with them, and a training that is killed ends like an undisturbed one.
"""

import json

import pytest
import yaml
from chain import kill, manifests, open_run, run_verb, tasks_of, verb, wait_for
from test_turns import RUN, data, turns_of  # noqa: F401 (a fixture)

pytestmark = pytest.mark.timeout(900)
TURNS = 3
METHODS = {
    "vine": {
        "kind": "vine_ppo",
        "rollouts": 3,
        "steps": {"kind": "pattern", "pattern": "[a-m]", "min_tokens": 2},
    }
}


def write(data, name: str, method: str):  # noqa: F811
    tree = json.loads(json.dumps(RUN)) | {"name": name}
    learn = tree["phases"]["learn"]
    learn["rounds"] = 1
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
    told = turns_of(run)
    (manifest,) = run.complete(1, "train")
    assert [t["turn"] for t in told] == [1, 2, 3]
    if method == "vine":
        states = sum(t["states"] for t in told)
        assert manifest.counts["states"] == states > TURNS * 3, "more than the questions have been valued"
        assert manifest.counts["rollouts"] == 3 * states
        assert 0 <= manifest.counts["answers_whole"] < manifest.counts["samples"], "some answers have steps"


def test_killed_it_ends_with_the_same_weights_and_samples_nothing_twice(calm, data):  # noqa: F811
    method, run = calm
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
    sampled = [t["turn"] for t in turns_of(killed) if t["transfer_s"] > 0.0]
    assert len(set(sampled)) == len(sampled), "a committed turn is not sampled again"
