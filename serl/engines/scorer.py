"""What a model says of given texts, loaded once, as numbers: one process, nothing sampled."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from serl.config.objectives import Splitter
from serl.config.training import Optimizer, Training
from serl.engines.model import load_tokenizer
from serl.engines.passes import frozen_logprobs, frozen_scores
from serl.engines.ranks import Ranks
from serl.learning.batch import Sample, scored
from serl.learning.preference import implicit_rewards
from serl.run.staging import node_local
from serl.text.steps import Pieces, cuts

Text = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt, and of an answer to it
STILL = Optimizer(lr=1.0)  # of a model that nobody trains


class Scorer:
    """The reward model at `folder`, which must have a scalar head.

    The numbers of a call are a function of its texts and of `microbatch_tokens`, padding included.
    """

    def __init__(self, folder: Path, *, device: str, microbatch_tokens: int):
        settings, alone = _alone(device, microbatch_tokens)
        self._ask = frozen_scores(_near(folder), settings, ranks=alone)
        self.sampled = 0  # tokens read so far

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """One number for each text, which is token ids with prompt and answer."""
        samples = [_sample(t[:1], t[1:]) for t in texts]
        self.sampled += sum(map(len, texts))
        return [x.item() for x in self._ask([scored(s, {}) for s in samples])] if samples else []

    def judge(self, texts: Sequence[Text]) -> list[float]:
        """The same of prompts and answers apart."""
        return self.score([(*prompt, *answer) for prompt, answer in texts])


class LogRatio:
    """Free process rewards (arXiv 2412.01981): beta log(p / p_ref) of an answer's tokens, p being that of the
    model at `folder`, added up over each of its steps.

    An answer's number is its least step's, or the sum of all.
    """

    def __init__(
        self,
        folder: Path,
        reference: Path,
        *,
        beta: float,
        steps: Splitter,
        least: bool,
        device: str,
        microbatch_tokens: int,
    ):
        settings, alone = _alone(device, microbatch_tokens)
        self._asks = [frozen_logprobs(_near(f), settings, ranks=alone) for f in (folder, reference)]
        self._pieces = Pieces(load_tokenizer(folder))
        self._beta, self._steps, self._least = beta, steps, least
        self.sampled = 0  # tokens read so far

    def judge(self, texts: Sequence[Text]) -> list[float]:
        """One number for each answer; 0 for one without tokens, which has no step."""
        samples = [_sample(prompt, answer) for prompt, answer in texts]
        self.sampled += sum(len(s.token_L) for s in samples)
        logps, refs = (ask(samples) if samples else [] for ask in self._asks)
        rewards = [implicit_rewards(a, b, self._beta) for a, b in zip(logps, refs, strict=True)]
        return [self._of(r, answer) for r, (_, answer) in zip(rewards, texts, strict=True)]

    def _of(self, reward_T: torch.Tensor, answer: Sequence[int]) -> float:
        if not len(answer):
            return 0.0
        starts = cuts(self._pieces.of(answer), self._steps)
        ends = (*starts[1:], len(answer))
        sums = [reward_T[a:b].sum().item() for a, b in zip(starts, ends, strict=True)]
        return min(sums) if self._least else sum(sums)


def _alone(device: str, microbatch_tokens: int) -> tuple[Training, Ranks]:
    settings = Training(optimizer=STILL, zero=0, compile=False, microbatch_tokens=microbatch_tokens)
    return settings, Ranks(rank=0, size=1, device=torch.device(device))


def _near(folder: Path) -> Path:
    copies = os.environ.get("SERL_WEIGHTS")  # set by slurm/env.sh on nodes with a disk of their own
    return node_local(folder, Path(copies) if copies else None)


def _sample(prompt: Sequence[int], answer: Sequence[int]) -> Sample:
    return Sample(token_L=torch.tensor([*prompt, *answer]), num_prompt=len(prompt), column={})
