"""How long the pages of `jobs.browse` take on a big run: `slurm/python tests/bench/browse.py [--groups 100000]`.

Made-up groups of 16 answers in 20 shards; the first page of a round pays for its index, every other page is what a reader waits for.
"""

import argparse
import copy
import io
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.browser.server import Server
from jobs.browser.site import Site
from serl.records import GROUP_SCHEMA, ROW_GROUP
from serl.run.attempt import Attempt
from serl.run.rundir import Run
from tests.conftest import SMALL, run_config

SAMPLES, SHARDS, WORDS = (
    16,
    20,
    np.array(
        ["how", "many", "apples", "does", "Ann", "have", "if", "she", "buys", "three", "boxes", "of", "seven"]
    ),
)
PAGES = {
    "the first page of a round": "groups?round=1",
    "a filter and an order": "groups?round=1&fate=kept&sort=agreement&down=1",
    "a text search": "groups?round=1&q=seven+boxes",
    "page 100 of it": "groups?round=1&q=seven+boxes&page=99",
    "one group": "group?round=1&at=77",
    "the next one": "group?round=1&at=78",
    "one far away": "group?round=1&at={far}&sort=margin",
}


def shard(num: int, tokens: int, rng: np.random.Generator) -> bytes:
    labels = np.where(
        rng.random((num, SAMPLES)) < rng.random((num, 1)), 0, rng.integers(1, 5, (num, SAMPLES))
    )
    sizes = np.stack([(labels == k).sum(1) for k in range(5)], 1)
    ranked = np.sort(sizes, 1)[:, ::-1]
    tie, winner, flat = ranked[:, 0] == ranked[:, 1], sizes.argmax(1), num * SAMPLES

    def lists(values: pa.Array, size: int) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, size, dtype=np.int32)), values)

    ids = lists(pa.array(rng.integers(0, 32000, flat * tokens, dtype=np.int32)), tokens)
    logp = lists(pa.array(rng.normal(-1, 1, flat * tokens).astype(np.float32)), tokens)
    texts, ends = pa.array([f"so it is \\boxed{{{k}}}" for k in labels.ravel()]), pa.array(["stop"] * flat)
    completions = pa.StructArray.from_arrays(
        [ids, logp, texts, ends], fields=list(GROUP_SCHEMA.field("completions").type.value_type)
    )
    columns = {
        "id": pa.array([f"r001-{i:06d}" for i in range(num)]), "role": pa.array(["train"] * num), "gold": pa.nulls(num, pa.string()),
        "question": pa.array([" ".join(row) for row in rng.choice(WORDS, (num, 25))]), "prompt_ids": pa.array([[1, 2, 3]] * num, pa.list_(pa.int32())),
        "completions": lists(completions, SAMPLES), "answers": lists(pa.array(labels.ravel().astype(str).tolist()), SAMPLES),
        "labels": lists(pa.array(labels.ravel().astype(np.int32)), SAMPLES), "winner": pa.array(np.where(tie, None, winner).tolist(), pa.int32()),
        "tie": pa.array(tie), "undecided": pa.array(np.zeros(num, np.int32)), "agreement": pa.array(ranked[:, 0] / SAMPLES),
        "margin": pa.array((ranked[:, 0] - ranked[:, 1]) / SAMPLES), "winner_correct": pa.nulls(num, pa.bool_()),
        "rewards": lists(pa.array(((labels == winner[:, None]) & ~tie[:, None]).ravel().astype(float)), SAMPLES),
    }  # fmt: skip
    sink = io.BytesIO()
    table = pa.Table.from_arrays([columns[name] for name in GROUP_SCHEMA.names], schema=GROUP_SCHEMA)
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--groups", type=int, default=100_000)
    p.add_argument("--tokens", type=int, default=12, help="of one answer")
    options = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = copy.deepcopy(SMALL) | {"name": "big", "rounds": 1}
        tree["respond"] |= {"shards": SHARDS, "samples": SAMPLES}
        run = Run.create(
            Path(folder) / "runs" / "big", run_config(tree), "synthetic"
        )
        rng = np.random.default_rng(0)
        for s in run.shards(1, "respond"):
            Attempt(run, s, id="a", inputs={}).publish_bytes(
                ".parquet", shard(options.groups // SHARDS, options.tokens, rng), 0, {}
            )
        server = Server(Site(run), 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        size = sum(f.stat().st_size for f in run.root.rglob("*.parquet"))
        print(f"{options.groups:,} groups of {SAMPLES} answers, {size / 1e6:,.0f} MB")
        for name, address in PAGES.items():
            begun = time.perf_counter()
            urllib.request.urlopen(server.url + address.format(far=options.groups // 2)).read()
            print(f"{name:<28} {1000 * (time.perf_counter() - begun):6.0f} ms")
        server.shutdown()


if __name__ == "__main__":
    main()
