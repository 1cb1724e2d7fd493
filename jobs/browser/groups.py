"""The groups of a round: their columns with the fate of each, and one opened, with its completions."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.browser.index import Index, done_files
from serl.records import ANCHOR, GROUP_SCHEMA, PROPOSAL
from serl.run.rundir import Run
from serl.stages.read import band, turn_files

LIGHT = pa.schema([f for f in GROUP_SCHEMA if f.name not in ("completions", "prompt_ids")])
PARTS = ("text", "finish_reason", "token_ids", "logprobs")
COMPLETION = [f"completions.list.element.{name}" for name in PARTS]


def group_index(run: Run, round: int) -> Index:
    """One row per question that was answered, by a stage of its own or in the turns of a training."""
    files, complete = done_files(run, round, "groups")
    files = [*files, *turn_files(run, round)]
    with ThreadPoolExecutor() as pool:
        tables = list(pool.map(_light, [path for _, path in files]))
    table = pa.concat_tables([LIGHT.empty_table(), *tables]).combine_chunks()
    reward = _list_means(table["rewards"])
    stages = [stage.name for (stage, _), t in zip(files, tables) for _ in range(t.num_rows)]
    own = {"reward": reward, "fate": fates(table, reward, *band(run.config, round)), "stage": stages}
    for name, values in own.items():
        table = table.append_column(name, pa.array(values, pa.float64() if name == "reward" else pa.string()))
    sizes = [(path, t.num_rows) for (_, path), t in zip(files, tables)]
    return Index(table=table, texts=("id", "question", "gold", "answers"), files=sizes, complete=complete)


def _light(path: Path) -> pa.Table:
    """One thread to a file: its many small row groups cost more to share out than to read."""
    return pq.ParquetFile(path, memory_map=True).read(LIGHT.names, use_threads=False)


def _list_means(column: pa.ChunkedArray) -> NDArray[np.float64]:
    lists = column.combine_chunks()
    parents, values = pc.list_parent_indices(lists).to_numpy(), lists.flatten().to_numpy()
    return np.bincount(parents, values, len(lists)) / np.maximum(1, pc.list_value_length(lists).to_numpy())


def fates(
    table: pa.Table, reward: NDArray[np.float64], shares: tuple[float, float], voted: bool
) -> NDArray[np.object_]:
    """`serl.rewards.vote.fate` of every group at once; of anchors and proposals their role, for no band is
    theirs.
    """
    (low, high), share = shares, reward.clip(0.0, 1.0)
    nobody = table["winner"].combine_chunks().is_null().to_numpy(zero_copy_only=False) & voted
    tie = table["tie"].to_numpy()
    others = (ANCHOR, PROPOSAL)
    cases = [pc.equal(table["role"], role).to_numpy() for role in others]
    cases += [nobody & tie, nobody, share < low, share > high]
    return np.select(cases, [*others, "tie", "no_votes", "too_hard", "too_easy"], "kept").astype(object)


def open_group(index: Index, row: int) -> dict:
    """One group, with its completions."""
    inside = row
    for path, num_rows in index.files:
        if inside < num_rows:
            return index.rows([row])[0] | {"completions": _completions(path, inside)}
        inside -= num_rows
    raise ValueError(f"row {row}: there are {len(index)} groups; go back to the list")


def _completions(path: Path, row: int) -> list[dict]:
    """From the one row group that has it."""
    file = pq.ParquetFile(path, memory_map=True)
    for number in range(file.num_row_groups):
        size = file.metadata.row_group(number).num_rows
        if row < size:
            return _row_group(path, number).slice(row, 1)["completions"].to_pylist()[0]
        row -= size
    raise AssertionError("the index counts no rows that the file has not")


@lru_cache(maxsize=4)
def _row_group(path: Path, number: int) -> pa.Table:
    return pq.ParquetFile(path, memory_map=True).read_row_group(number, columns=COMPLETION)
