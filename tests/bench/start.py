"""How long a training takes to have its samples in memory, and how much of it: 4,100 groups of 16 answers, on
each of two ranks.

Run: `python -m tests.bench.start [groups]`. Both ways read the same files at the same time as another rank
does: as records, one Python object a token, which is how readers of a few groups still do it; and as columns.
Peak memory is that of the process beyond its imports.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from serl.learning.batch import Sample
from serl.learning.columns import Samples, read_answers
from serl.records import GROUP_SCHEMA, ROW_GROUP, groups_from_parquet

GROUPS, ANSWERS, SHARDS, RANKS = 4100, 16, 8, 2
PROMPT, RESPONSE = 170, 450  # tokens, on average


def write_shard(path: Path, groups: int, rng: np.random.Generator) -> None:
    """Groups of random tokens with as much text as such tokens make."""
    text = "".join(map(chr, rng.integers(97, 123, 10**6)))
    many = groups * ANSWERS
    lengths = rng.integers(RESPONSE // 2, RESPONSE * 3 // 2, many)
    answers = pa.StructArray.from_arrays(
        [
            _lists(rng.integers(0, 128_000, lengths.sum()).astype(np.int32), lengths),
            _lists(-rng.random(lengths.sum(), dtype=np.float32), lengths),
            pa.array(
                [
                    text[int(i) : int(i) + 4 * int(n)]
                    for i, n in zip(rng.integers(0, 9 * 10**5, many), lengths)
                ]
            ),
            pa.array(["stop"] * many),
        ],
        fields=list(GROUP_SCHEMA.field("completions").type.value_type),
    )
    each, prompts = np.full(groups, ANSWERS), rng.integers(PROMPT // 2, PROMPT * 3 // 2, groups)
    labels = [[i % 3 for i in range(ANSWERS)]] * groups
    plain = {
        "id": [str(i) for i in range(groups)], "role": ["train"] * groups, "question": [text[:500]] * groups, "gold": [None] * groups,
        "answers": [["1", "2", "3", "1"] * 4] * groups, "labels": labels, "winner": [0] * groups, "tie": [False] * groups,
        "undecided": [0] * groups, "agreement": [0.4] * groups, "margin": [0.1] * groups, "winner_correct": [None] * groups,
        "rewards": [[float(x == 0) for x in labels[0]]] * groups,
    }  # fmt: skip
    columns = {name: pa.array(values, GROUP_SCHEMA.field(name).type) for name, values in plain.items()}
    columns["prompt_ids"] = _lists(rng.integers(0, 128_000, prompts.sum()).astype(np.int32), prompts)
    columns["completions"] = _lists(answers, each)
    table = pa.table([columns[name] for name in GROUP_SCHEMA.names], schema=GROUP_SCHEMA)
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def _lists(values: np.ndarray | pa.Array, lengths: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values if isinstance(values, pa.Array) else pa.array(values))


def as_records(paths: list[Path]) -> int:
    """As trainings used to read: every token an integer and every log-probability a float, before they are
    tensors.
    """
    groups = [g for path in paths for g in groups_from_parquet(path.read_bytes())]
    samples = [
        Sample(token_L=torch.tensor(g.prompt_ids + c.token_ids), num_prompt=len(g.prompt_ids), column={})
        for g in groups
        for c in g.completions
    ]
    behaviour_T = torch.tensor(
        [x for g in groups for c in g.completions for x in c.logprobs], dtype=torch.float32
    )
    assert len(behaviour_T) == sum(s.num_response for s in samples)
    return len(samples)


def as_columns(paths: list[Path]) -> int:
    """As trainings read: votes as records, tokens as columns."""
    votes = [g for path in paths for g in groups_from_parquet(path.read_bytes(), completions=False)]
    return len(Samples(read_answers(paths, [g.own for g in votes])))


def rank(read: Callable[[list[Path]], int], paths: list[Path], said: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    before, begun, used = _peak(), time.perf_counter(), time.process_time()
    read(paths)
    said.put((time.perf_counter() - begun, time.process_time() - used, _peak() - before))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(read: Callable[[list[Path]], int], paths: list[Path]) -> tuple[float, ...]:
    """Seconds, processor seconds and GB, each of the rank with most."""
    spawn = multiprocessing.get_context("spawn")
    said = spawn.Queue()
    ranks = [spawn.Process(target=rank, args=(read, paths, said)) for _ in range(RANKS)]
    for process in ranks:
        process.start()
    found = [said.get() for _ in ranks]
    for process in ranks:
        process.join()
    return tuple(map(max, zip(*found, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", type=int, nargs="?", default=GROUPS)
    groups = parser.parse_args().groups
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.parquet" for i in range(SHARDS)]
        for i, path in enumerate(paths):
            write_shard(path, groups * (i + 1) // SHARDS - groups * i // SHARDS, np.random.default_rng(i))
        size = sum(p.stat().st_size for p in paths) / 1e6
        print(f"{groups} groups of {ANSWERS} answers, {size:.0f} MB, {RANKS} ranks at once\n")
        print(f"{'read as':>10}{'seconds':>10}{'of CPU':>10}{'GB a rank':>12}")
        for name, read in (("records", as_records), ("columns", as_columns)):
            seconds, busy, gb = measure(read, paths)
            print(f"{name:>10}{seconds:>10.2f}{busy:>10.2f}{gb:>12.2f}", flush=True)


if __name__ == "__main__":
    main()
