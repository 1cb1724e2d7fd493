"""Weights on disk a stretch at a time: reading any part of a tensor from safetensors files, and writing such
files with their hash.

A file is read where the stretch lies and nowhere else, never mapped: what a rank has in memory is what it
asked for. A file is hashed while it is written, by another thread, and durable when it has its hash.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

STRETCH = 2**24  # numbers that are read at once
CHUNK_BYTES = 2**24  # that are hashed and written at once
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Sealed = tuple[int, str]  # bytes and sha256 of a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a tensor lies: its first byte in the file, its type and its shape."""

    path: Path
    begin: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class Slices:
    """The tensors of a safetensors file, or of all in a folder, by name; those of other types than floating
    point are left out.
    """

    def __init__(self, place: Path):
        self._stored: dict[str, Stored] = {}
        for path in sorted(place.glob("*.safetensors")) if place.is_dir() else [place]:
            self._stored |= _read_header(path)

    @property
    def names(self) -> list[str]:
        return list(self._stored)

    def dtype(self, name: str) -> torch.dtype:
        """The tensor's own type."""
        return self._stored[name].dtype

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The tensor's shape; None where there is no such tensor."""
        stored = self._stored.get(name)
        return None if stored is None else stored.shape

    def read(self, name: str, start: int, value_N: Tensor) -> None:
        """Fill `value_N`, in its own type, with the elements from `start` on of the flattened tensor."""
        stored = self._stored[name]
        with open(stored.path, "rb") as file:
            for begin in range(0, len(value_N), STRETCH):
                part_N = value_N[begin : begin + STRETCH]
                file.seek(stored.begin + (start + begin) * stored.dtype.itemsize)
                data = bytearray(len(part_N) * stored.dtype.itemsize)
                if file.readinto(data) != len(data):
                    raise ValueError(f"{stored.path}: cut off in the middle of {name}; copy it again")
                part_N.copy_(torch.frombuffer(data, dtype=stored.dtype))


def _read_header(path: Path) -> dict[str, Stored]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: Stored(
            path=path,
            begin=8 + length + entry["data_offsets"][0],
            dtype=DTYPES[entry["dtype"]],
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] in DTYPES
    }


def write_slices(path: Path, tensors: Mapping[str, Tensor]) -> Sealed:
    """Write tensors, all on the CPU, as one durable safetensors file; its size and hash."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, value in tensors.items():
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(text)
    with open(path, "wb") as file, ThreadPoolExecutor(1) as pool:
        file.write(text)
        for chunk in _chunks(tensors):
            hashed = pool.submit(digest.update, chunk)
            file.write(chunk)
            hashed.result()
        file.flush()
        os.fsync(file.fileno())
    return len(text) + end, digest.hexdigest()


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    for value in tensors.values():
        data = memoryview(value.contiguous().view(-1).view(torch.uint8).numpy())
        for i in range(0, len(data), CHUNK_BYTES):
            yield data[i : i + CHUNK_BYTES]
