"""A reward model, loaded once, as a function from texts to numbers: one process, nothing sampled."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from serl.config.training import Optimizer, Training
from serl.engines.passes import frozen_scores
from serl.engines.ranks import Ranks
from serl.learning.batch import Sample, scored
from serl.run.staging import node_local

STILL = Optimizer(lr=1.0)  # of a model that nobody trains


class Scorer:
    """What stands at `folder`, which must have a scalar head.

    The numbers of a call are a function of its texts and of `microbatch_tokens`, padding included.
    """

    def __init__(self, folder: Path, *, device: str, microbatch_tokens: int):
        copies = os.environ.get("SERL_WEIGHTS")  # set by slurm/env.sh on nodes with a disk of their own
        settings = Training(optimizer=STILL, zero=0, compile=False, microbatch_tokens=microbatch_tokens)
        alone = Ranks(rank=0, size=1, device=torch.device(device))
        here = node_local(folder, Path(copies) if copies else None)
        self._ask = frozen_scores(here, settings, ranks=alone)
        self.sampled = 0  # tokens read so far

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """One number for each text, which is token ids with prompt and answer."""
        samples = [Sample(token_L=torch.tensor(t), num_prompt=1, column={}) for t in texts]
        self.sampled += sum(map(len, texts))
        return [x.item() for x in self._ask([scored(s, {}) for s in samples])] if samples else []
