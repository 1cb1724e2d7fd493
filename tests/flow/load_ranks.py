"""One rank of the test of memory: loads a model to train, says what that took at most, and what was promised.
Started by `test_loading.py`.
"""

import json
import os
import re
import sys
from pathlib import Path

import deepspeed  # noqa: F401 (what it takes is not the model's)
import torch
import train_ranks as job

from serl.engines import loading, slices, zero
from serl.engines import trainer as trainers
from serl.engines.model import load_model
from serl.engines.ranks import join_ranks

CASES = {
    "zero_3": (3, {"dtype": "float32"}, True),
    "zero_3_bfloat16": (3, {"dtype": "bfloat16"}, True),
    "zero_1_bfloat16": (1, {"dtype": "bfloat16"}, True),
    "whole": (3, {"dtype": "bfloat16"}, False),
}


def peak_bytes() -> int:
    """The most that this process had in memory since the last reset, files that were only mapped left out."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def now_bytes() -> int:
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def main(folder: Path, out: Path, kind: str) -> None:
    torch.set_num_threads(1)
    zero.SHARD_BYTES = loading.SHARD_BYTES = 2**23
    slices.STRETCH = loading.STRETCH = 2**20
    ranks = join_ranks("cpu", timeout_s=300)
    stage, changes, hollow = CASES[kind]
    settings = job.settings(stage, **changes)
    Path("/proc/self/clear_refs").write_text("5")
    before = now_bytes()
    source = folder if hollow else load_model(folder, torch.float32, torch.float32)
    reading: list[int] = []

    def measured(*args):
        found = loading.prepare(*args)
        reading.append(peak_bytes() - before)
        return found

    trainers.prepare = measured
    trainer = trainers.Trainer(source, settings, ranks=ranks, horizon=1, seed=0)
    del source
    num_weights = sum(getattr(p, "ds_numel", p.numel()) for p in trainer._lm.parameters())
    promised = loading.load_bytes(num_weights, trainer._plan, ranks_per_node=2)
    seen = {
        "reading": sum(ranks.gather(reading[0])),
        "node": sum(ranks.gather(peak_bytes() - before)),
        "promised": promised,
        "weights": num_weights,
    }
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.leave()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).name)
