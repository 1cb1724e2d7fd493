"""New weights from the trainer into the engine beside it, and the proof that they arrived.

vLLM loads what it is given and says nothing of what it lacks: in 0.32 a model with tied embeddings keeps its
old output layer unless that comes under its own name, too. So after a transfer both sides read the same
tokens, and where they differ by more than rounding the job ends. An engine starts with weights that mean
nothing, so that what is left out shows after the first transfer, and not when training has moved the rest far
enough.
"""

import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from serl.engines.resident import Resident
from serl.engines.trainer import Trainer
from serl.engines.zero import compute_dtype
from serl.learning.batch import Sample

MAX_TOKENS = 4096  # that are compared at most: beside an engine that is awake the trainer has little room
MAX_LENGTH = 1024  # and of one sample: vLLM has the logits of all of its tokens at once

# The most that |difference| of log-probabilities may be on average. Right engines: 4e-7 in float32, 0.005 to
# 0.03 in bfloat16; one without its output layer: 0.6.
BOUNDS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}


class TransferError(RuntimeError):
    """The engine does not compute what the trainer computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far log-probabilities of the engine and of the trainer are apart, on the rank where it is worst.

    `mean` and `largest` are of the absolute difference, over `tokens` tokens.
    """

    mean: float
    largest: float
    tokens: int
    rank: int
    host: str


def move(engine: Resident, trainer: Trainer) -> float:
    """Give the engine the trainer's present weights; all ranks call it. Seconds it took."""
    start = time.monotonic()
    engine.take(trainer.weights())
    return time.monotonic() - start


def check(engine: Resident, trainer: Trainer, samples: Sequence[Sample]) -> Gap:
    """The gap on the samples' responses; TransferError, on all ranks, where types do not explain it.

    All ranks call it with the same samples. Every engine reads all of them, so a dozen is plenty. Before
    anything is sampled, prompts will do, with `num_prompt` 1.
    """
    gap = measure(engine, trainer, samples)
    dtypes = engine.dtype, str(compute_dtype(trainer.settings, trainer.ranks.device)).removeprefix("torch.")
    bound = max(BOUNDS[name] for name in dtypes)
    if not gap.mean <= bound:  # not a number is not within any bound
        raise TransferError(
            f"after step {trainer.step_index} the engine of rank {gap.rank} on {gap.host} and the trainer "
            f"differ by {gap.mean:.2g} a token (at most {gap.largest:.2g}, over {gap.tokens} tokens; bound "
            f"{bound:g} for {' and '.join(dtypes)}): a weight did not arrive, most likely the output layer "
            "of "
            "a model with tied embeddings, or vLLM computes this model differently; what it samples is not "
            "the policy's"
        )
    return gap


def measure(engine: Resident, trainer: Trainer, samples: Sequence[Sample]) -> Gap:
    """The gap on the samples' responses at temperature 1, as far as the engine's context reaches."""
    read = _probes(samples, min(engine.max_model_len - 1, MAX_LENGTH))
    trainer_T = torch.cat(trainer.logprobs(read, temperature=1.0)).double()
    engine_S = engine.logprobs([s.token_L.tolist() for s in read], [s.num_prompt for s in read])
    gap_T = (torch.tensor([x for row in engine_S for x in row], dtype=torch.float64) - trainer_T).abs()
    mine = Gap(
        mean=gap_T.mean().item(),
        largest=gap_T.max().item(),
        tokens=len(gap_T),
        rank=trainer.ranks.rank,
        host=socket.gethostname(),
    )
    return max(trainer.ranks.gather(mine), key=lambda g: math.inf if math.isnan(g.mean) else g.mean)


def _probes(samples: Sequence[Sample], room: int) -> list[Sample]:
    """As many of the samples as MAX_TOKENS allow, at least one, each cut to `room` tokens.

    Their responses are compared, or all of them where the prompt fills the room.
    """
    probes: list[Sample] = []
    tokens = 0
    for s in samples:
        num_prompt = s.num_prompt if s.num_prompt < room else 1
        cut = Sample(token_L=s.token_L[:room], num_prompt=num_prompt, column={})
        tokens += len(cut.token_L)
        if probes and tokens > MAX_TOKENS:
            break
        if cut.num_response > 0:
            probes.append(cut)
    return probes
