"""Passes without gradients: the log-probabilities of many samples, each computed by one rank and known to
all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from serl.config.training import Training
from serl.engines.hf_folder import HeadKind
from serl.engines.loading import load_frozen
from serl.engines.model import TokenLogProbs
from serl.engines.packed import is_packed
from serl.engines.ranks import Ranks
from serl.engines.scores import Scores
from serl.engines.zero import Plan, compute_dtype, frozen_engine
from serl.learning.batch import Rows, Sample, collate, plan_micro_batches, plan_pairs

Forward = Callable[[Rows], Tensor]
Ask = Callable[[Sequence[Sample]], list[Tensor]]  # what a frozen model gives of each sample's response tokens


def frozen_logprobs(folder: Path, settings: Training, *, ranks: Ranks, temperature: float = 1.0) -> Ask:
    """The model at `folder` as a function from samples to their log-probabilities."""
    return _frozen(folder, settings, ranks, "tokens", temperature)


def frozen_scores(folder: Path, settings: Training, *, ranks: Ranks) -> Ask:
    """The reward model at `folder` as a function from samples to the numbers of its head."""
    return _frozen(folder, settings, ranks, "scalar", 1.0)


def module_of(lm: PreTrainedModel, head: HeadKind, temperature: float) -> TokenLogProbs | Scores:
    """A model as a function from rows to what is read of it."""
    return TokenLogProbs(lm, temperature) if head == "tokens" else Scores(lm)


def _frozen(folder: Path, settings: Training, ranks: Ranks, head: HeadKind, temperature: float) -> Ask:
    """A model that is asked only.

    It lies on every rank whole, or, where training is at stage 3 because the model is large, split over the
    ranks like the one in training.
    """
    split = settings.zero == 3 and ranks.size > 1
    dtype = compute_dtype(settings, ranks.device)
    plan = Plan(stage=3 if split else 0, dtype=dtype, settings=settings, ranks=ranks)
    lm = load_frozen(folder, plan, head)
    packed = is_packed(lm)
    module = module_of(lm, head, temperature)
    if plan.compiled:
        module.compile_pieces()
    forward = frozen_engine(module, plan) if split else module

    def ask(samples: Sequence[Sample]) -> list[Tensor]:
        mine = share_of(samples, settings.microbatch_tokens, packed, ranks)
        return gather_logprobs(forward, samples, mine, packed, ranks)

    return ask


def share_of(
    samples: Sequence[Sample], max_tokens: int, packed: bool, ranks: Ranks, *, in_pairs: bool = False
) -> list[tuple[int, ...]]:
    """The micro-batches of this rank, as positions in `samples`; `in_pairs`: neighbours stay together."""
    lengths = [len(s.token_L) for s in samples]
    plan = plan_pairs if in_pairs else plan_micro_batches
    return plan(lengths, ranks.size, max_tokens, packed)[ranks.rank]


@torch.no_grad()
def gather_logprobs(
    forward: Forward, samples: Sequence[Sample], plan: Sequence[tuple[int, ...]], packed: bool, ranks: Ranks
) -> list[Tensor]:
    """Each rank fills in its samples; the sum over ranks is everybody's."""
    lengths = [s.num_response for s in samples]
    whole = torch.zeros(sum(lengths), device=ranks.device)
    part = whole.split(lengths)
    for micro in plan:
        logp_T = forward(collate([samples[i] for i in micro], packed).to(ranks.device))
        for i, logp in zip(micro, logp_T.split([lengths[i] for i in micro])):
            part[i].copy_(logp)
    return list(ranks.sum(whole).cpu().split(lengths))
