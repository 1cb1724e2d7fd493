"""Which samples meet in which optimizer step, on which rank and in which forward pass; and their tensors.

The order of samples is a function of (seed, round, epoch) only; the split over ranks and micro-batches one of
the lengths only, so every rank knows every rank's part without asking. Neither changes what is minimised (see
`objective`). Shapes: B rows of L tokens (a row is one padded sample, or several packed), T response tokens of
the micro-batch end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from serl.randomness import rng_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One token sequence; the tokens after the first `num_prompt` are the response, the ones with a loss.

    Every column (advantage, weight, ...) has one number per response token. Imitation uses `num_prompt=1`:
    all that can be predicted.
    """

    token_L: Tensor
    num_prompt: int
    column: dict[str, Tensor]

    @property
    def num_response(self) -> int:
        return len(self.token_L) - self.num_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One forward pass. The log-probability of `target_T` is read at the flat positions `where_T` of the B*L
    outputs.

    Rows are padded on the right and attention is causal, so padding needs no mask. Of samples that are packed
    into one row `position_BL` restarts at each, and `start_N` has where each begins, and the end.
    """

    token_BL: Tensor
    position_BL: Tensor
    where_T: Tensor
    target_T: Tensor
    column: dict[str, Tensor]
    start_N: Tensor | None = None
    longest: int = 0

    @property
    def packing(self) -> dict[str, Tensor | int]:
        """What attentions of transformers are told of packed samples."""
        if self.start_N is None:
            return {}
        starts = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), self.start_N)
        return starts | dict.fromkeys(("max_length_q", "max_length_k"), self.longest)

    def to(self, device: torch.device) -> "Rows":
        """The same rows on a device."""
        return Rows(
            token_BL=self.token_BL.to(device),
            position_BL=self.position_BL.to(device),
            where_T=self.where_T.to(device),
            target_T=self.target_T.to(device),
            column={name: value_T.to(device) for name, value_T in self.column.items()},
            start_N=None if self.start_N is None else self.start_N.to(device),
            longest=self.longest,
        )


Plan = list[list[tuple[int, ...]]]


def attach(samples: Sequence[Sample], column: dict[str, Tensor]) -> list[Sample]:
    """The samples with their parts of columns that run over all response tokens end to end."""
    lengths = [s.num_response for s in samples]
    parts = {name: value_T.split(lengths) for name, value_T in column.items()}
    return [
        replace(s, column=s.column | {name: part[i] for name, part in parts.items()})
        for i, s in enumerate(samples)
    ]


def scored(sample: Sample, column: dict[str, Tensor]) -> Sample:
    """A whole text, of which a scalar head's number is read after its last token, with one number a column.

    The token that stands there is padding: attention is causal, so that nothing sees it.
    """
    tokens = torch.cat([sample.token_L, sample.token_L.new_zeros(1)])
    return Sample(token_L=tokens, num_prompt=len(sample.token_L), column=column)


def sample_order(num_samples: int, seed: int, round_index: int, stage: str, epoch: int) -> list[int]:
    """A shuffle of all sample positions that depends on nothing but its arguments."""
    order = list(range(num_samples))
    rng_of(seed, round_index, stage, "order", epoch).shuffle(order)
    return order


def split_evenly(order: Sequence[int], batch_samples: int) -> list[list[int]]:
    """The fewest optimizer batches of at most `batch_samples`, their sizes differing by at most one: no small
    batch takes a full-size step.
    """
    num_batches = -(-len(order) // batch_samples)
    cuts = [len(order) * i // num_batches for i in range(num_batches + 1)] if num_batches else [0]
    return [list(order[a:b]) for a, b in pairwise(cuts)]


def split_by_tokens(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Optimizer batches that close as soon as they hold `batch_tokens`; a last one with less than half of
    that joins the one before.
    """
    batches: list[list[int]] = []
    tokens = batch_tokens
    for i in order:
        if tokens >= batch_tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    if len(batches) > 1 and tokens < batch_tokens / 2:
        last = batches.pop()
        batches[-1] += last
    return batches


def plan_micro_batches(lengths: Sequence[int], num_ranks: int, max_tokens: int, packed: bool = False) -> Plan:
    """For each rank its micro-batches, as tuples of sample positions; all ranks get the same number of them
    (ZeRO-3 runs in lockstep).

    Samples are dealt to ranks back and forth by falling length, then gathered into micro-batches of at most
    `max_tokens`, padding included (a longer sample goes alone). Ranks with fewer split their largest; an
    empty tuple is a pass without samples.
    """
    by_length = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    dealt: list[list[int]] = [[] for _ in range(num_ranks)]
    for turn, i in enumerate(by_length):
        lap, seat = divmod(turn, num_ranks)
        dealt[seat if lap % 2 == 0 else num_ranks - 1 - seat].append(i)
    plan = [_fill(mine, lengths, max_tokens, packed) for mine in dealt]
    most = max(len(p) for p in plan)
    return [_stretch(p, most) for p in plan]


def plan_pairs(lengths: Sequence[int], num_ranks: int, max_tokens: int, packed: bool = False) -> Plan:
    """`plan_micro_batches` for samples of which 2p and 2p+1 are a pair: they stay side by side, in this
    order.
    """
    sides = list(zip(lengths[0::2], lengths[1::2], strict=True))
    costs = [a + b if packed else 2 * max(a, b) for a, b in sides]
    plan = plan_micro_batches(costs, num_ranks, max_tokens, packed)
    return [[tuple(i for p in micro for i in (2 * p, 2 * p + 1)) for micro in mine] for mine in plan]


def collate(samples: Sequence[Sample], packed: bool = False) -> Rows:
    """The tensors of one micro-batch; no samples give one row without response tokens, whose loss is zero."""
    lengths = [len(s.token_L) for s in samples]
    start_N = None
    if packed or not samples:
        token_BL = (
            torch.cat([s.token_L for s in samples]).unsqueeze(0)
            if samples
            else torch.zeros(1, 2, dtype=torch.long)
        )
        position_BL = torch.cat([torch.arange(n) for n in lengths or [2]]).unsqueeze(0)
        starts = list(accumulate(lengths or [2], initial=0))
        start_N = torch.tensor(starts, dtype=torch.int32) if packed else None
    else:
        width = max(lengths)
        token_BL = torch.nn.utils.rnn.pad_sequence([s.token_L for s in samples], batch_first=True)
        position_BL = torch.arange(width).expand(len(samples), width)
        starts = [width * i for i in range(len(samples))]
    where = [torch.arange(a + s.num_prompt - 1, a + n - 1) for a, n, s in zip(starts, lengths, samples)]
    nothing = torch.zeros(0, dtype=torch.long)
    names = samples[0].column if samples else {}
    return Rows(
        token_BL=token_BL,
        position_BL=position_BL,
        where_T=torch.cat([nothing, *where]),
        target_T=torch.cat([nothing, *(s.token_L[s.num_prompt :] for s in samples)]),
        column={name: torch.cat([s.column[name] for s in samples]) for name in names},
        start_N=start_N,
        longest=max(lengths, default=2),
    )


def _fill(
    mine: Sequence[int], lengths: Sequence[int], max_tokens: int, packed: bool
) -> list[tuple[int, ...]]:
    """Consecutive samples of falling length, as many as fit."""
    filled: list[list[int]] = []
    used = 0
    for i in mine:
        cost = lengths[i] if packed or not filled else lengths[filled[-1][0]]
        if not filled or used + cost > max_tokens:
            filled.append([])
            used, cost = 0, lengths[i]
        filled[-1].append(i)
        used += cost
    return [tuple(f) for f in filled]


def _stretch(micro_batches: list[tuple[int, ...]], count: int) -> list[tuple[int, ...]]:
    """The same samples in `count` micro-batches: the fullest are halved while they can be, then empty ones
    are added.
    """
    stretched = list(micro_batches)
    while len(stretched) < count:
        at = max(range(len(stretched)), key=lambda i: len(stretched[i]), default=0)
        if stretched and len(stretched[at]) > 1:
            whole = stretched[at]
            stretched[at : at + 1] = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
        else:
            stretched.append(())
    return stretched
