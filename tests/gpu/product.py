"""Does a run go through, from a model made on the spot to its report, as a user's does?"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import yaml
from models import SHAPES, Place, make_tokenizer, random_llama
from sheet import Figures, Sheet

from serl.run.events import read_events
from serl.run.rundir import Run

ROOT = Path(__file__).parents[2]
TURNS = 3
TOLD = ("mismatch_kl", "sample_s", "transfer_s", "logprob_s", "step_s")


def launch(sheet: Sheet, place: Place) -> None:
    """`python -m jobs.launch`: a model trains itself in turns and is reported on."""
    sheet.claim("a run in turns", partial(_launch, place))


def settings(model: Path) -> dict:
    """Turns of a tiny model, from where it lies, with nothing before them; the engine starts fast."""
    rollout = {
        "prompts": 16, "samples": 16, "turns": TURNS, "reward": {"kind": "random"},
        "sampling": {"temperature": 1.0, "max_tokens": 60},
        "problems": {"per_round": 16, "source": {"kind": "jsonl", "path": "some.jsonl"}},
    }  # fmt: skip
    train = {
        "objective": {"kind": "grpo", "kl": 1e-3}, "agreement": [0.0, 1.0], "batch_samples": 64,
        "checkpoint_every": 2, "optimizer": {"lr": 1e-3, "schedule": "constant"}, "rollout": rollout,
    }  # fmt: skip
    return {
        "extends": str(ROOT / "configs/prompts/arithmetic.yaml"), "name": "turns", "seed": 0,
        "base": {"kind": "checkpoint", "path": str(model)},
        "engine": {"max_model_len": 512, "kv_cache_gib": 0.25, "eager": True, "gpu_memory_utilization": 0.1},
        "phases": {"learn": {"rounds": 1, "stages": ["train"], "train": train}},
    }  # fmt: skip


def _launch(place: Place) -> Figures:
    data = place.root / "data"
    (data / "seeds").mkdir(parents=True)
    rows = "".join(f'{{"question": "What is {i} plus {i}?"}}\n' for i in range(16))
    (data / "seeds/some.jsonl").write_text(rows)
    model = data / "models/random"
    random_llama(SHAPES["head 32, tied"], 0, place).save_pretrained(model)
    make_tokenizer(512).save_pretrained(model)
    (place.root / "turns.yaml").write_text(yaml.safe_dump(settings(model)))
    begun = time.monotonic()
    command = [sys.executable, "-m", "jobs.launch", "--data", str(data), str(place.root / "turns.yaml")]
    done = subprocess.run(
        command, check=False, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        logs = sorted((data / "runs/turns").rglob("*.out"), key=lambda path: path.stat().st_mtime)
        raise AssertionError("\n".join([done.stdout[-2000:], *(p.read_text()[-4000:] for p in logs[-1:])]))
    run = Run.open(data / "runs/turns")
    turns = [e for e in read_events(run.root / "events") if e["kind"] == "turn"]
    assert [e["turn"] for e in turns] == list(range(1, TURNS + 1)), turns
    phases = {e["name"]: e["seconds"] for e in read_events(run.root / "events") if e["kind"] == "phase"}
    reports = list(run.root.glob("report*"))
    assert reports, "no report"
    told = {name: float(turns[-1][name]) for name in TOLD}
    return told | {"launch_s": time.monotonic() - begun, "phases": str(phases)}
