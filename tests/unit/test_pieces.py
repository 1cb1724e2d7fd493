"""Training state that was cut one way is put together another way, bit by bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serl.engines.pieces import Piece, fill, write

NAMES = {"model.embed": 37, "model.norm": 5, "odd:name": 1}


def whole(values: dict[str, torch.Tensor]) -> list[Piece]:
    return [
        Piece(kind=kind, name=name, start=0, value_N=value_N[i])
        for i, kind in enumerate(("master", "exp_avg"))
        for name, value_N in values.items()
    ]


def random_values(seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, numel, generator=g) for name, numel in NAMES.items()}


@settings(max_examples=25)  # every file is made durable
@given(writers=st.integers(1, 9), readers=st.integers(1, 9), max_bytes=st.integers(1, 200))
def test_any_number_of_readers_gets_what_any_number_of_writers_wrote(
    tmp_path_factory, writers, readers, max_bytes
):
    folder = tmp_path_factory.mktemp("pieces")
    values, empty = (
        random_values(writers),
        {name: torch.full((2, numel), torch.nan) for name, numel in NAMES.items()},
    )
    paths = [
        path
        for r in range(writers)
        for path in write(folder, f"rank_{r}", [p.share(r, writers) for p in whole(values)], max_bytes)
    ]
    for r in range(readers):
        fill([p.share(r, readers) for p in whole(empty)], paths)
    assert all(torch.equal(values[name], empty[name]) for name in NAMES)


def test_files_are_of_bounded_size(tmp_path):
    paths = write(tmp_path, "rank_0", whole(random_values(0)), max_bytes=80)
    numbers = sum(2 * n for n in NAMES.values())
    assert len(paths) >= numbers * 4 / 80
    header = 1000
    assert all(p.stat().st_size <= 80 + header for p in paths)


def test_a_number_that_no_file_has_is_an_error(tmp_path):
    paths = write(tmp_path, "rank_0", whole(random_values(0))[1:])
    with pytest.raises(ValueError, match="has 49 of the 86 numbers needed"):
        fill(whole(random_values(1)), paths)
