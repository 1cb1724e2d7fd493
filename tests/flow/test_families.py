"""Every family of models through all stages, and once more from what it published: the real vLLM and DeepSpeed."""

import json

import pytest
import yaml
from chain import SLOW, manifests, open_run, verb
from families import FAMILIES, OPENING, PLAIN, SEEDS, answer, make_family

from serl.run.events import read_events

pytestmark = [pytest.mark.timeout(900), SLOW]
SAMPLING = {"temperature": 1.0, "max_tokens": 40}
TREE = {
    "name": "family",
    "seed": 0,
    "base": {"kind": "checkpoint", "path": "base"},
    "seeds": {"kind": "jsonl", "path": "seeds.jsonl"},
    "prompts": {
        "propose_system": "Write.", "propose_opening": OPENING, "respond_user": "{question}", "respond_plain": PLAIN
    },
    "engine": {"max_model_len": 400, "kv_cache_gib": 0.1},
    "phases": {"self_play": {
        "rounds": 2,
        "stages": ["propose", "curate", "respond", "train", "score"],
        "propose": {"shards": 1, "prompts": 24, "seed_shots": 2, "kept_shots": 1,
                    "sampling": {"temperature": 1.0, "max_tokens": 120}},
        "curate": {"max_instructions": 16},
        "respond": {"shards": 1, "samples": 4, "sampling": SAMPLING},
        "train": {
            "objective": {"kind": "grpo", "kl": 1e-3}, "agreement": [0.0, 1.0], "batch_samples": 8, "zero": 1,
            "optimizer": {"lr": 1e-4, "schedule": "constant"},
            "rollout": {"prompts": 4, "samples": 4, "turns": 2, "sampling": SAMPLING, "reward": {"kind": "random"}},
        },
        "score": {"shards": 1, "benchmarks": ["arithmetic"], "max_tokens": 40},
    }},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_all_stages_and_on_from_its_own_export(family, tmp_path):
    for folder in ("seeds", "models", "benchmarks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "seeds/seeds.jsonl").write_text("".join(json.dumps({"question": q}) + "\n" for q in SEEDS))
    known = [{"id": str(i), "question": q, "answer": answer(q)[-3:-2], "kind": "sum"} for i, q in enumerate(SEEDS)]
    (tmp_path / "benchmarks/arithmetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    make_family(tmp_path / "models/base", family)
    config = tmp_path / "family.yaml"
    config.write_text(yaml.safe_dump(TREE, sort_keys=False))
    launcher = verb("launch", str(config), data=tmp_path)
    assert launcher.process.wait(timeout=850) == 0, launcher.said()
    run = open_run(tmp_path, "family")
    done = manifests(run)
    assert all(done[f"{round}/curate/0"].counts["kept"] > 0 for round in (1, 2)), done
    turns = [e for e in read_events(run.root / "events") if e["kind"] == "turn"]
    assert len(turns) == 4 and all(e["mismatch_kl"] < 1e-6 for e in turns), turns
