"""Training state as pieces that any number of ranks can write and any other number can read.

A piece is a stretch of one flattened parameter, or of one of Adam's moments of it. Every rank writes the
pieces it holds and reads the ones it needs, each straight from the file that has it: no rank ever gathers the
whole, and nothing on disk depends on the rank count, on the ZeRO stage or on the compute type. This module
knows where ZeRO keeps what; it copies bits and computes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from serl.engines.slices import Sealed, write_slices

MASTER = "master"
MOMENTS = ("exp_avg", "exp_avg_sq")
MAX_FILE_BYTES = 2**30  # also what a rank on a GPU needs in host memory while it saves without a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`value_N` is elements `start` to `start + N` of a parameter's `kind`: a view of the training state, in
    float32, for reading or filling.
    """

    kind: str
    name: str
    start: int
    value_N: Tensor

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.start}:{self.name}"

    def share(self, rank: int, size: int) -> "Piece":
        """This rank's part of a piece that all ranks hold."""
        begin, end = (len(self.value_N) * r // size for r in (rank, rank + 1))
        return self.cut(begin, end)

    def cut(self, begin: int, end: int) -> "Piece":
        return Piece(
            kind=self.kind, name=self.name, start=self.start + begin, value_N=self.value_N[begin:end]
        )


def masters(engine, lm: nn.Module, stage: int) -> Iterator[Piece]:
    """The float32 weights that this rank's optimizer moves."""
    for name, flat, offset, start, numel in _held(engine, lm, stage):
        yield Piece(kind=MASTER, name=name, start=start, value_N=flat.data.view(-1)[offset : offset + numel])


def moments(engine, lm: nn.Module, stage: int) -> Iterator[Piece]:
    """Adam's state of those weights; zeros, made here, where no step was taken yet."""
    for name, flat, offset, start, numel in _held(engine, lm, stage):
        state = _adam_state(engine.basic_optimizer, flat)
        for kind in MOMENTS:
            yield Piece(
                kind=kind, name=name, start=start, value_N=state[kind].view(-1)[offset : offset + numel]
            )


def _held(engine, lm: nn.Module, stage: int) -> Iterator[tuple[str, Tensor, int, int, int]]:
    """(parameter, the optimizer's tensor, offset in it, first element, number of elements) for whatever part
    of it this rank keeps, of those that are trained.
    """
    zero = engine.optimizer
    for name, p in lm.named_parameters():
        if not p.requires_grad:
            continue
        if stage == 0:
            yield name, p, 0, 0, p.numel()
        elif stage == 3:
            group, offset, numel = zero.grad_position[zero.get_param_id(p)]
            start = zero._get_param_partition_rank(p) * numel
            if p.ds_numel > start:  # the last ranks' partitions may be padding in part, or altogether
                yield (
                    name,
                    zero.fp32_partitioned_groups_flat[group],
                    offset,
                    start,
                    min(numel, p.ds_numel - start),
                )
        elif p._hp_mapping is not None:
            here, there = p._hp_mapping.hp_fragment_address, p._hp_mapping.lp_fragment_address
            (flat,) = engine.basic_optimizer.param_groups[p._hp_mapping.param_group_index]["params"]
            yield name, flat, here.start, there.start, here.numel


def _adam_state(adam: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    state = adam.state[flat]
    if not state:
        state |= {"step": torch.zeros((), device=flat.device)} | {
            kind: torch.zeros_like(flat.data) for kind in MOMENTS
        }
    return state


def set_adam_step(engine, step: int) -> None:
    """What Adam's bias correction counts from."""
    for state in engine.basic_optimizer.state.values():
        state["step"].fill_(step)


def use_masters(engine, stage: int) -> None:
    """Make the weights of the forward pass from masters that were filled; all ranks call it."""
    zero = engine.optimizer
    if stage in (1, 2):
        zero.update_lp_params()
    elif stage == 3:
        for group in range(len(zero.fp32_partitioned_groups_flat)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        if kept := zero.persistent_parameters:  # whole on every rank, hence stale now
            kept[0].partition(kept)
            kept[0].all_gather(kept)


def snapshot(pieces: Iterable[Piece]) -> list[Piece]:
    """Copies in host memory, which the next step does not change."""
    return [
        Piece(kind=p.kind, name=p.name, start=p.start, value_N=p.value_N.to("cpu", copy=True)) for p in pieces
    ]


def write(
    folder: Path, prefix: str, pieces: Iterable[Piece], max_bytes: int = MAX_FILE_BYTES
) -> dict[Path, Sealed]:
    """Write pieces into as many durable files as their size demands; the size and hash of each."""
    sealed: dict[Path, Sealed] = {}
    batch: dict[str, Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal size
        path = folder / f"{prefix}_{len(sealed):05d}.safetensors"
        sealed[path] = write_slices(path, batch)
        batch.clear()
        size = 0

    longest = max(1, max_bytes // 4)
    for part in (
        piece.cut(i, i + longest) for piece in pieces for i in range(0, len(piece.value_N), longest)
    ):
        if batch and size + part.value_N.nbytes > max_bytes:
            flush()
        batch[part.key] = part.value_N.to("cpu")
        size += part.value_N.nbytes
    if batch:
        flush()
    return sealed


def fill(pieces: Sequence[Piece], paths: Iterable[Path]) -> None:
    """Copy into each piece what the files have of it, whoever wrote them; refuses when an element is not
    there.
    """
    wanted: dict[tuple[str, str], list[Piece]] = defaultdict(list)
    for piece in pieces:
        wanted[piece.kind, piece.name].append(piece)
    found = 0
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
                kind, start, name = key.split(":", 2)
                for piece in wanted.get((kind, name), ()):
                    found += _copy_overlap(piece, int(start), file.get_slice(key))
    if found != (needed := sum(len(p.value_N) for p in pieces)):
        raise ValueError(
            f"{path.parent}: has {found} of the {needed} numbers needed; it is of another model, "
            "or of another version of this code"
        )


def _copy_overlap(piece: Piece, start: int, stored) -> int:
    """Copy what `stored`, which begins at element `start`, has of the piece; returns how many elements."""
    begin, end = max(piece.start, start), min(piece.start + len(piece.value_N), start + stored.get_shape()[0])
    if begin >= end:
        return 0
    piece.value_N[begin - piece.start : end - piece.start].copy_(stored[begin - start : end - start])
    return end - begin
