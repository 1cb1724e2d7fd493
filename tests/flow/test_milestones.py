"""A training that publishes its policy along the way, with the real vLLM and the real DeepSpeed: it is scored while training
goes on, is published once whoever is killed, and changes nothing of what the training ends with.
"""

import json
from pathlib import Path

import pytest
import transformers
import yaml
from chain import SLOW, event_seen, kill, manifests, open_run, run_verb, tasks_of, verb, wait_for

from jobs.reporting.findings import gather
from serl.engines.tokenizer import build_tokenizer
from serl.records import to_jsonl
from serl.run.events import read_events
from tests.conftest import SMALL

pytestmark = pytest.mark.timeout(900)
TURNS, EVERY = 24, 6
RUN = {
    "seed": 5,
    "base": {"kind": "checkpoint", "path": "random"},
    "prompts": SMALL["prompts"],
    "engine": {"max_model_len": 96, "kv_cache_gib": 0.05},
    "phases": {
        "learn": {
            "stages": ["train", "score"],
            "train": {
                "objective": {"kind": "grpo", "kl": 0.0},
                "agreement": [0.0, 1.0],
                "batch_samples": 6,
                "checkpoint_every": 4,
                "loss_mean": "sequence",
                "optimizer": {"lr": 1e-3, "schedule": "constant"},
                "rollout": {
                    "prompts": 3,
                    "samples": 4,
                    "turns": TURNS,
                    "publish_every": EVERY,
                    "reward": {"kind": "random"},  # a model of random weights finds no answer, and must move all the same
                    "sampling": {"temperature": 1.0, "max_tokens": 40},
                    "problems": {"per_round": 8, "source": {"kind": "jsonl", "path": "some.jsonl"}},
                },
            },
            "score": {
                "shards": 1,
                "benchmarks": ["arithmetic"],
                "validation": ["arithmetic_validation"],
                "max_tokens": 8,
            },
        }
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data root with a random model of 30,000 weights, and a machine where a slot is free beside a training."""
    root = tmp_path_factory.mktemp("milestones")
    folder = root / "models/random"
    build_tokenizer(["a few words 0 1 2"], 259, folder)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = transformers.LlamaConfig(
        vocab_size=264, max_position_embeddings=96, tie_word_embeddings=True, **shape, **ids
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (root / "seeds").mkdir()
    rows = [{"question": f"What is {i} plus {i}?"} for i in range(8)]
    (root / "seeds/some.jsonl").write_bytes(to_jsonl(rows))
    (root / "benchmarks").mkdir()
    problems = [{"id": str(i), "question": f"{i} plus {i}?", "answer": 2 * i, "kind": "sum"} for i in range(6)]
    for name in ("arithmetic", "arithmetic_validation"):
        (root / f"benchmarks/{name}.jsonl").write_bytes(to_jsonl(problems))
    (root / "here.yaml").write_text(yaml.safe_dump({"kind": "local", "cores": 2, "train_ranks": 1}))
    plain = json.loads(json.dumps(RUN))
    plain["phases"]["learn"]["train"]["rollout"]["publish_every"] = None
    for name, tree in (("plain", plain), ("calm", RUN), ("killed", RUN)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(tree | {"name": name}))
    return root


@pytest.fixture(scope="module")
def calm(data):
    return _finished(data, "calm")


def _finished(data: Path, name: str):
    launched = ("--cluster", str(data / "here.yaml"))
    code, said = run_verb("launch", str(data / f"{name}.yaml"), *launched, data=data)
    assert code == 0, said
    return open_run(data, name)


def test_policies_are_published_along_the_way_and_scored_while_training_goes_on(calm):
    found, last = manifests(calm), {}
    for turn in range(EVERY, TURNS, EVERY):
        published, scored = found[f"1/train@{turn}/0"], found[f"1/score@{turn}/0"]
        assert published.counts == {"turns": turn, "steps": 2 * turn, "samples": 12 * turn}
        assert scored.inputs["policy"] == published.digest
        assert scored.counts["problems"] == 6, "only the problems to choose by are asked"
        assert published.digest not in last, "the weights have moved"
        last[published.digest] = turn
    done = next(e["time"] for e in read_events(calm.root / "events") if (e["kind"], e["stage"]) == ("done", "train"))
    given_out = (calm.root / "logs" / f"r001-score@{EVERY}").glob("*/*_submitted.pkl")
    first = min(path.stat().st_mtime for path in given_out)  # its process may take seconds to import what it needs
    assert first < done, "the first is given out to be looked at before the training has ended"


def test_the_last_policy_is_the_same_to_the_byte_without_any_along_the_way(calm, data):
    plain = _finished(data, "plain")
    files = [{f.name: f.sha256 for f in manifests(run)["1/train/0"].files if f.name.startswith("policy/")} for run in (calm, plain)]
    assert files[0] == files[1]


def test_the_report_draws_them_and_may_choose_one(calm):
    (_, last) = gather(calm).rounds
    assert [m.turn for m in last.milestones] == list(range(EVERY, TURNS, EVERY))
    assert all("arithmetic_validation" in m.scores for m in last.milestones)
    code, said = 0, (calm.root / "report.html").read_text()
    assert code == 0 and "Policies along the way" in said


@SLOW
def test_killed_after_a_publication_it_publishes_the_same_bytes_once(calm, data):
    launch = verb("launch", str(data / "killed.yaml"), "--cluster", str(data / "here.yaml"), data=data)
    first = data / f"runs/killed/round_001/train@{EVERY}/shard_00000.json"
    wait_for(first.exists, "the first publication")
    before = first.read_bytes()
    for pid in [*tasks_of(launch.process.pid, "train"), launch.process.pid]:
        kill(pid)
    launch.process.wait()
    assert not event_seen(data / "runs/killed", "train", 1, "done")
    code, said = run_verb("resume", "killed", "--cluster", str(data / "here.yaml"), data=data)  # as many ranks
    assert code == 0, said
    killed = open_run(data, "killed")
    assert first.read_bytes() == before, "what is published is not published again"
    assert {k: m.digest for k, m in manifests(killed).items()} == {k: m.digest for k, m in manifests(calm).items()}
