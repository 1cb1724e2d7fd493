"""One rank of the test of reward models: Bradley-Terry steps on pairs at every ZeRO stage, exported and asked again.

Started by `test_score_trainer.py` through `test_trainer.run_ranks`; importable for the data both sides use.
"""

import json
import os
import sys
from pathlib import Path

import torch
import train_ranks as job

from serl.config.objectives import BradleyTerry
from serl.engines.model import load_tokenizer
from serl.engines.passes import frozen_scores
from serl.engines.ranks import join_ranks
from serl.engines.trainer import Trainer
from serl.learning.batch import Sample, scored
from serl.learning.preference import preference_loss

LOSS = preference_loss(BradleyTerry(centre=0.01))
NUM_PAIRS = 8


def pairs() -> list[Sample]:
    """Neighbours are a pair; lengths so uneven that micro-batches would part them."""
    g = torch.Generator().manual_seed(4)
    lengths = torch.randint(2, 40, (2 * NUM_PAIRS,), generator=g).tolist()
    column = {"weight": torch.ones(1), "label": torch.ones(1), "margin": torch.zeros(1)}
    rows = [torch.randint(3, 259, (n,), generator=g) for n in lengths]
    return [scored(Sample(token_L=row, num_prompt=1, column={}), column) for row in rows]


def train(zero: int, base: Path, out: Path, ranks) -> dict:
    policy = out / f"policy_{zero}"
    Trainer(job.make_model(base), job.settings(0), ranks=ranks, horizon=1, seed=1).export(
        policy, load_tokenizer(base)
    )
    trainer = Trainer(
        policy, job.settings(zero), ranks=ranks, horizon=6, seed=job.SEED, head="scalar", in_pairs=True
    )
    seen = {"before": torch.cat(trainer.outputs(pairs())).tolist(), "steps": []}
    for half in (slice(0, 8), slice(8, 16)) * 3:
        stats = trainer.step(pairs()[half], LOSS)
        seen["steps"].append([stats.loss, stats.grad_norm, stats.means["pair_accuracy"]])
    seen["after"] = torch.cat(trainer.outputs(pairs())).tolist()
    trainer.export(out / f"reward_{zero}", load_tokenizer(base))
    asked = frozen_scores(out / f"reward_{zero}", job.settings(zero), ranks=ranks)
    seen["asked"] = torch.cat(asked(pairs())).tolist()
    return seen


def main(base: Path, out: Path) -> None:
    torch.set_num_threads(1)
    ranks = join_ranks("cpu", timeout_s=120)
    seen = {f"zero_{zero}": train(zero, base, out, ranks) for zero in (0, 1, 3)}
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.leave()
    os._exit(0)  # gloo's threads outlive their group


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
