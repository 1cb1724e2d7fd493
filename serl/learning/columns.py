"""Sampled answers as flat tensors, straight from the files that hold them: no Python object for a token, or
for an answer not in use.

Of a round's groups only those that are trained on are kept, and of these only what training reads: token ids
and log-probabilities. Shapes: G groups of N answers, S = G*N answers, P prompt tokens and T response tokens
end to end.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from serl.learning.batch import Sample, scored

ANSWER = "completions.list.element"
READ = ["prompt_ids", f"{ANSWER}.token_ids", f"{ANSWER}.logprobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """`prompt_P` of `prompt_G` tokens a group; `token_T`, and the sampler's `behaviour_T`, of `length_S` an
    answer; `group_S` says whose.
    """

    prompt_P: Tensor
    prompt_G: Tensor
    token_T: Tensor
    behaviour_T: Tensor
    length_S: Tensor
    group_S: Tensor


class Samples(Sequence[Sample]):
    """Answers as samples that are made when they are asked for, with their parts of columns that run over all
    response tokens.
    """

    def __init__(self, answers: Answers, column: Mapping[str, Tensor] | None = None):
        self.answers, self._column = answers, dict(column or {})
        self._prompts, self._starts = _ends(answers.prompt_G), _ends(answers.length_S)

    def attach(self, column: Mapping[str, Tensor]) -> "Samples":
        return Samples(self.answers, self._column | dict(column))

    def __len__(self) -> int:
        return len(self.answers.length_S)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        group = int(self.answers.group_S[at])
        prompt = self.answers.prompt_P[self._prompts[group] : self._prompts[group + 1]]
        mine = slice(self._starts[at], self._starts[at + 1])
        return Sample(
            token_L=torch.cat([prompt, self.answers.token_T[mine]]).long(),
            num_prompt=len(prompt),
            column={name: value_T[mine] for name, value_T in self._column.items()},
        )


class Texts(Sequence[Sample]):
    """Whole texts for a scalar head, with one number a column each; made when they are asked for."""

    def __init__(self, samples: Samples, column: Mapping[str, Tensor]):
        self._samples, self._column = samples, column

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, at: int) -> Sample:
        at = range(len(self))[at]
        own = {name: value_S[at : at + 1] for name, value_S in self._column.items()}
        return scored(self._samples[at], own)


def read_answers(files: Iterable[bytes | Path], kept: Sequence[bool]) -> Answers:
    """The answers of those groups, of all files end to end, that are kept; one row group after the other."""
    chunks: dict[str, list[np.ndarray]] = {
        name: [] for name in ("prompt_P", "prompt_G", "token_T", "behaviour_T", "length_S", "group_S")
    }
    seen = taken = 0
    for batch in _batches(files):
        mask = np.asarray(kept[seen : seen + len(batch)], dtype=bool)
        seen += len(batch)
        if mask.any():
            for name, values in _flat(batch.filter(pa.array(mask)), first=taken).items():
                chunks[name].append(values)
            taken += int(mask.sum())
    assert seen == len(kept), f"{len(kept)} groups were judged, the files have {seen}"
    return Answers(**{name: _joined(parts) for name, parts in chunks.items()})


def _batches(files: Iterable[bytes | Path]) -> Iterator[pa.RecordBatch]:
    for file in files:
        opened = pq.ParquetFile(io.BytesIO(file) if isinstance(file, bytes) else file)
        for number in range(opened.num_row_groups):
            yield from opened.read_row_group(number, columns=READ, use_threads=False).to_batches()


def _flat(batch: pa.RecordBatch, *, first: int) -> dict[str, np.ndarray]:
    """The tokens of a batch of groups, of which the first is number `first`, and how they are divided."""
    prompts, completions = batch.column("prompt_ids"), batch.column("completions")
    answers = completions.flatten()
    tokens, logprobs = answers.field("token_ids"), answers.field("logprobs")
    several = _lengths(completions)
    return {
        "prompt_P": _values(prompts),
        "prompt_G": _lengths(prompts),
        "token_T": _values(tokens),
        "behaviour_T": _values(logprobs),
        "length_S": _lengths(tokens),
        "group_S": np.repeat(np.arange(first, first + len(several)), several),
    }


def _values(lists: pa.ListArray) -> np.ndarray:
    return lists.flatten().to_numpy(zero_copy_only=False)


def _lengths(lists: pa.ListArray) -> np.ndarray:
    return lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)


def _joined(parts: list[np.ndarray]) -> Tensor:
    """The parts end to end; each is let go when it is copied, so that there is one copy of all, not two."""
    if not parts:
        return torch.zeros(0, dtype=torch.int64)
    whole = torch.empty(sum(map(len, parts)), dtype=torch.from_numpy(parts[0][:0].copy()).dtype)
    start = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        whole.numpy()[start : start + len(part)] = part
        start += len(part)
    return whole


def _ends(count_N: Tensor) -> list[int]:
    """Where each of N stretches begins, and where the last one ends."""
    return [0, *torch.cumsum(count_N, 0).tolist()]
