"""Self-play beyond the majority, whole, on a tiny base that a run before made: the real vLLM and the real
DeepSpeed through every method's stages.
"""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from chain import SLOW, open_run, run_verb
from safetensors.torch import load_file

from serl.config.rewards import Scrl
from serl.records import PROPOSAL, groups_from_parquet
from serl.rewards.agreement import class_shares, scrl_rewards
from serl.run.events import read_events
from serl.stages.work import corpus_dir, policy_dir
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(900)
TINY = str(ROOT / "tests/flow/tiny.yaml")
SAMPLING = {"temperature": 1.0, "max_tokens": 60}
PROBLEMS = {"source": {"kind": "jsonl", "path": "problems.jsonl"}, "per_round": 8}


def training(rollout: dict, **changes) -> dict:
    objective = {"kind": "grpo", "kl": 1e-3}
    optimizer = {"lr": 1e-4, "schedule": "constant"}
    rollout = {"prompts": 4, "samples": 4, "turns": 2, "sampling": SAMPLING} | rollout
    return {
        "objective": objective, "agreement": [0.0, 1.0], "batch_samples": 16, "zero": 1,
        "optimizer": optimizer, "rollout": rollout,
    } | changes  # fmt: skip


PROPOSER = {"reward": {"kind": "learnability"}, "proposals": 4, "max_tokens": 60}
WRITER = {"proposals": 4, "shots": 1, "kept_shots": 2, "max_tokens": 60}
OWN = {
    "gated": {
        "stages": ["train"],
        "train": training({"problems": PROBLEMS, "votes": 8, "reward": {"kind": "scrl"}}),
    },
    "proposed": {
        "stages": ["train"],
        "train": training({"prompts": 8, "proposer": PROPOSER, "reward": {"kind": "class_share"}}),
    },
    "written": {
        "stages": ["train"],
        "train": training({"prompts": 8, "proposer": WRITER}),
    },
}
TAUGHT = {
    "taught": {
        "rounds": 2,
        "stages": ["teacher", "respond", "train"],
        "teacher": {"kind": "average", "share": 0.25},
        "respond": {
            "role": "teacher", "shards": 1, "samples": 4, "sampling": SAMPLING, "problems": PROBLEMS
        },
        "train": training({"vote": "array"}),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data root with a tiny base, and the seeds and problems of its world."""
    data = tmp_path_factory.mktemp("self_play")
    small = ["name=base", "rounds=0", "base.corpus.documents=2500", "score.samples=0"]
    code, said = run_verb("launch", TINY, *small, data=data)
    assert code == 0, said
    (data / "seeds").mkdir()
    for name in ("seeds.jsonl", "problems.jsonl"):
        shutil.copy(corpus_dir(open_run(data, "base")) / name, data / "seeds")
    return data


def launch(data: Path, name: str, phases: dict):
    policy = {"kind": "checkpoint", "path": str(policy_dir(open_run(data, "base"), 0)[0])}
    seeds = {"kind": "jsonl", "path": "seeds.jsonl"}
    tree = {"extends": TINY, "name": name, "base": policy, "seeds": seeds}
    tree |= {"phases": {"self_play": None} | phases}
    (data / f"{name}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    code, said = run_verb("launch", str(data / f"{name}.yaml"), data=data)
    assert code == 0, said
    return open_run(data, name)


@pytest.fixture(scope="module")
def own(data):
    return launch(data, "own", OWN)


@pytest.fixture(scope="module")
def taught(data):
    return launch(data, "taught", TAUGHT)


def turns_of(run, round: int) -> list:
    (manifest,) = run.complete(round, "train")
    (file,) = [f for f in manifest.files if f.name.endswith(".turns.parquet")]
    return groups_from_parquet(Path(run.path(manifest, file)).read_bytes())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def test_answers_earn_their_classs_share(own):
    groups = [g for g in turns_of(own, 2) if g.own]
    assert groups and all(g.rewards == class_shares(g.labels) for g in groups)


def test_eight_vote_and_four_are_trained_on(own):
    groups = turns_of(own, 1)
    assert len(groups) == 8
    for g in groups:
        surprise = [-sum(c.logprobs) / len(c.logprobs) for c in g.completions]
        assert len(g.rewards) == 8 and g.rewards == pytest.approx(scrl_rewards(Scrl(), g.labels, surprise))
    (manifest,) = own.complete(1, "train")
    assert manifest.counts["samples"] == 4 * len(groups)


@SLOW
def test_the_teacher_is_the_moving_average_of_policies_and_votes(taught):
    old, new = (policy_dir(taught, round, "teacher")[0] for round in (1, 2))
    policy = weights(policy_dir(taught, 1)[0])
    before, after = weights(old), weights(new)
    assert any(not torch.equal(before[name], policy[name]) for name in policy)
    for name, value in policy.items():
        assert torch.allclose(after[name], before[name] + 0.25 * (value - before[name]), atol=1e-7)
    start = weights(policy_dir(taught, 0)[0])
    assert all(torch.equal(before[name], start[name]) for name in start), "the first teacher is the policy"
    assert_moved(taught)


def test_proposals_of_a_prompt_are_a_group_that_is_paid_by_its_answers(own):
    found = turns_of(own, 2)
    proposals = [g for g in found if g.role == PROPOSAL]
    answered = {g.id: g for g in found if g.role == "train"}
    assert len(proposals) == 4 and all(len(g.rewards) == 4 for g in proposals)
    for g in proposals:
        for j, (text, label, earned) in enumerate(zip(g.answers, g.labels, g.rewards)):
            question = answered.pop(f"{g.id}-{j:02d}", None)
            assert (question is None) == (label is None)
            if question is None:
                assert earned == -1.0
            else:
                p = max(question.labels.count(k) for k in question.labels)
                p = p / 4 if p > 1 and question.agreement else 0.0
                assert question.question == text and earned == 4 * p * (1 - p)
    assert not answered, "what is answered was proposed"
    (manifest,) = own.complete(2, "train")
    assert 0 < manifest.counts["valid"] <= manifest.counts["proposals"] == 16
    told = [e for e in read_events(own.root / "events") if e["kind"] == "turn" and e["round"] == 2]
    assert all(0 < e["proposals_valid"] <= 1 for e in told)


def test_proposals_are_trained_on_beside_the_answers(own):
    (manifest,) = own.complete(2, "train")
    stepped = [e for e in read_events(own.root / "events") if e["kind"] == "step" and e["round"] == 2]
    answers = manifest.counts["samples"]
    assert len(stepped) == manifest.counts["steps"] > answers / 16, "8 proposals a turn come on top"


def test_questions_are_written_after_those_that_passed_the_filter_in_turns_before(own):
    found = turns_of(own, 3)
    answered = {g.question for g in found if g.role == "train" and g.id.startswith("t0000")}
    proposals = [g for g in found if g.role == PROPOSAL]
    first, second = (
        {shot for g in proposals if g.id.startswith(turn) for shot in g.question.split("\n")}
        for turn in ("t0000", "t0001")
    )
    assert answered and not first & answered, "the first turn has seeds alone"
    assert second & answered, "the filter lets all through"


def test_who_writes_without_a_reward_is_not_trained_to(own):
    (manifest,) = own.complete(3, "train")
    found = turns_of(own, 3)
    assert all(set(g.rewards) == {0.0} for g in found if g.role == PROPOSAL)
    told = [e for e in read_events(own.root / "events") if e["kind"] == "turn" and e["round"] == 3]
    answers = [4 * round(8 * e["kept"] * e["refill"]) for e in told]
    assert sum(answers) == manifest.counts["samples"]
    assert manifest.counts["steps"] == sum(-(-n // 16) for n in answers) > 0


def assert_moved(run) -> None:
    policies = [weights(policy_dir(run, round)[0]) for round in range(run.config.rounds + 1)]
    for before, after in pairwise(policies):
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_every_method_moves_the_policy(own):
    assert_moved(own)
