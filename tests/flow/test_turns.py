"""A training in turns, whole, with the real vLLM and the real DeepSpeed on two ranks: killed anywhere, it samples nothing
twice and ends with the weights of an undisturbed one.
"""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import transformers
import yaml
from chain import kill, manifests, open_run, run_verb, tasks_of, verb, wait_for

from serl.engines.tokenizer import build_tokenizer
from serl.records import to_jsonl
from serl.run.events import read_events
from tests.conftest import SMALL

pytestmark = pytest.mark.timeout(900)
TURNS, PROMPTS, SAMPLES = 4, 3, 4
RUN = {
    "name": "turns",
    "seed": 5,
    "base": {"kind": "checkpoint", "path": "random"},
    "prompts": SMALL["prompts"],
    "engine": {"max_model_len": 96, "kv_cache_gib": 0.05},
    "phases": {
        "learn": {
            "rounds": 2,
            "stages": ["train"],
            "carry": "phase",
            "train": {
                "objective": {"kind": "grpo", "kl": 1e-3},
                "agreement": [0.0, 1.0],
                "batch_samples": 6,
                "checkpoint_every": 2,
                "loss_mean": "sequence",
                "optimizer": {"lr": 1e-3, "schedule": "constant"},
                "rollout": {
                    "prompts": PROMPTS,
                    "samples": SAMPLES,
                    "turns": TURNS,
                    "reward": {"kind": "random"},  # a model of random weights finds no answer, and must move all the same
                    "sampling": {"temperature": 1.0, "max_tokens": 12},
                    "problems": {"per_round": 8, "source": {"kind": "jsonl", "path": "some.jsonl"}},
                },
            },
        }
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data root with a random model of 30,000 weights, tied, and some questions."""
    root = tmp_path_factory.mktemp("turns")
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
    for name in ("calm", "killed"):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(RUN | {"name": name}))
    return root


@pytest.fixture(scope="module")
def calm(data):
    code, said = run_verb("launch", str(data / "calm.yaml"), data=data)
    assert code == 0, said
    return open_run(data, "calm")


def turns_of(run) -> list[dict]:
    return [e for e in read_events(run.root / "events") if e["kind"] == "turn"]


def test_every_turn_is_told_and_its_groups_are_kept_in_one_file(calm):
    told = [e for e in turns_of(calm) if e["round"] == 1]
    assert [e["turn"] for e in told] == [1, 2, 3, 4]
    assert all(e["mismatch_kl"] < 1e-6 for e in told), "engine and trainer agree after each transfer"
    assert all(abs(e["correction_mean"] - 1) < 1e-4 and e["correction_outside"] == 0 for e in told)
    assert told[0]["kl_ref"] == 0.0 and told[-1]["kl_ref"] > 0.0, "the policy leaves its start"
    for round in (1, 2):
        (manifest,) = calm.complete(round, "train")
        assert manifest.counts["turns"] == TURNS
        assert manifest.counts["samples"] == TURNS * PROMPTS * SAMPLES
        (file,) = [f for f in manifest.files if f.name.endswith(".turns.parquet")]
        ids = pq.read_table(calm.path(manifest, file))["id"].to_pylist()
        assert len(set(ids)) == len(ids) == TURNS * PROMPTS
        assert not list((calm.stage_dir(round, "train") / "shard_00000").glob("part_*"))


def test_the_optimizer_goes_on_through_the_phase(calm):
    steps = [(e["round"], e["lr"]) for e in read_events(calm.root / "events") if e["kind"] == "step"]
    assert Counter(round for round, _ in steps) == {1: 2 * TURNS, 2: 2 * TURNS}
    assert (calm.stage_dir(1, "train") / "carry").is_dir()
    assert not (calm.stage_dir(2, "train") / "carry").exists(), "nobody takes over from the last round"


def test_killed_twice_it_ends_with_the_same_weights_and_samples_nothing_twice(calm, data):
    parts = data / "runs/killed/round_001/train/shard_00000"
    launch = verb("launch", str(data / "killed.yaml"), data=data)
    for number in (1, 3):
        wait_for(lambda n=number: list(parts.glob(f"part_{n:05d}.*")), f"turn {number + 1} to be sampled")
        for pid in [*tasks_of(launch.process.pid, "train"), launch.process.pid]:
            kill(pid)
        launch.process.wait()
        launch = verb("resume", "killed", data=data)
    assert launch.wait() == 0, launch.said()
    killed = open_run(data, "killed")
    assert {k: m.digest for k, m in manifests(killed).items()} == {
        k: m.digest for k, m in manifests(calm).items()
    }
    sampled = [e for e in turns_of(killed) if e["round"] == 1 and e["transfer_s"] > 0.0]
    assert max(Counter(e["turn"] for e in sampled).values()) == 1, "a committed turn is not sampled again"


def test_what_is_trained_on_is_sampled_from_the_policy_itself(data):
    tree = json.loads(json.dumps(RUN))
    tree["phases"]["learn"]["train"]["rollout"]["sampling"]["top_p"] = 0.9
    (data / "narrow.yaml").write_text(yaml.safe_dump(tree))
    code, said = run_verb("launch", str(data / "narrow.yaml"), data=data)
    assert code == 2 and "rollout.sampling.top_p 0.9" in " ".join(said.split())
