"""A model folder between two others of one architecture: their weights' mean, file by file."""

import shutil
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from serl.engines.slices import Sealed, Slices, write_slices


def mean_folder(
    first: Path, second: Path, share: float, folder: Path, *, without: Collection[str] = ()
) -> dict[str, Sealed]:
    """Write share * first + (1 - share) * second, in the types and files of `first`; all else is its own, but
    for the files `without`. The sizes and hashes of the weights' files.

    A tensor that `second` lacks, or has in another shape, is a ValueError. One file is in memory at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in first.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in without:
            shutil.copyfile(path, folder / path.name)
    others = Slices(second)
    sealed: dict[str, Sealed] = {}
    for path in sorted(first.glob("*.safetensors")):
        mine = Slices(path)
        weights = {name: _between(name, mine, others, share, second) for name in mine.names}
        sealed[path.name] = write_slices(folder / path.name, weights)
    return sealed


def _between(name: str, mine: Slices, others: Slices, share: float, second: Path) -> Tensor:
    shape = mine.shape(name)
    if others.shape(name) != shape:
        raise ValueError(
            f"{second}: {name} has the shape {others.shape(name)}, not {shape}: the two are of different "
            "models"
        )
    ours, theirs = (torch.empty(shape).view(-1) for _ in "12")
    mine.read(name, 0, ours)
    others.read(name, 0, theirs)
    return theirs.lerp_(ours, share).view(shape).to(mine.dtype(name))
