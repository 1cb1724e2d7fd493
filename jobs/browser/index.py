"""What a reader of a run looks through: instructions with their fates, groups with their votes, graded responses; filtered, sorted, in pages.

An index holds the columns that lists and filters need, of the shards that are done; answers and token ids are read when one is opened.
Nothing is checked against its digest here: to read a page must not cost the reading of a stage. Nothing here escapes text; pages do.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serl.stages.read import band
from serl.records import GROUP_SCHEMA, from_jsonl
from serl.run.rundir import Run, RunError
from serl.text.prompts import one_line

LIGHT = [name for name in GROUP_SCHEMA.names if name not in ("completions", "prompt_ids")]
COMPLETION = [
    f"completions.list.element.{name}" for name in ("text", "finish_reason", "token_ids", "logprobs")
]
ANY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a reader asked to see: equal words in `only` (empty: any), a range of numbers in `between`, a text, and an order."""

    only: Mapping[str, str] = field(default_factory=dict)
    between: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    text: str = ""
    sort: str = ""
    down: bool = False


@dataclass(frozen=True)
class Index:
    """Rows of one kind of one round: `words` to choose among, `numbers` to bound and sort by, `texts` to search, and the rest in `table`.

    `complete`: every shard was done when it was made, so it will not change.
    """

    table: pa.Table
    words: Mapping[str, NDArray[np.object_]]
    numbers: Mapping[str, NDArray[np.float64]]
    texts: Sequence[str]
    files: tuple[tuple[Path, int], ...]
    complete: bool

    def __len__(self) -> int:
        return self.table.num_rows

    def find(self, wish: Wish) -> NDArray[np.int64]:
        """The rows that are wished for, in the order that is wished for, else the round's own."""
        keep = np.ones(len(self), bool)
        for name, word in wish.only.items():
            if word != ANY and name in self.words:
                keep &= self.words[name] == word
        for name, (low, high) in wish.between.items():
            if name in self.numbers and (low, high) != (0.0, 1.0):
                keep &= (self.numbers[name] >= low - 1e-9) & (self.numbers[name] <= high + 1e-9)
        if wish.text:
            keep &= self._mentions(wish.text)
        rows = np.flatnonzero(keep)
        if wish.sort in self.numbers:
            key = self.numbers[wish.sort][rows]
            rows = rows[np.argsort(-key if wish.down else key, kind="stable")]
        return rows

    def _mentions(self, text: str) -> NDArray[np.bool_]:
        """Rows in which a text stands, capitals or not; in a list of texts, in any of them."""
        found = np.zeros(len(self), bool)
        for name in self.texts:
            column = self.table[name].combine_chunks()
            if pa.types.is_list(column.type):
                hits = pc.fill_null(pc.match_substring(column.flatten(), text, ignore_case=True), False)
                found[pc.list_parent_indices(column).to_numpy()[hits.to_numpy(zero_copy_only=False)]] = True
            else:
                found |= pc.fill_null(pc.match_substring(column, text, ignore_case=True), False).to_numpy(
                    zero_copy_only=False
                )
        return found

    def rows(self, numbers: Sequence[int]) -> list[dict]:
        """A page of rows, each with its words and numbers."""
        taken = self.table.take(pa.array(numbers, pa.int64())).to_pylist()
        chosen = [
            {k: v[i] for k, v in self.words.items()} | {k: float(v[i]) for k, v in self.numbers.items()}
            for i in numbers
        ]
        return [row | more | {"row": int(i)} for row, more, i in zip(taken, chosen, numbers)]

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many rows have each word of each kind, the most frequent first."""
        return {name: dict(Counter(words.tolist()).most_common()) for name, words in self.words.items()}


def group_index(run: Run, round: int) -> Index:
    """One row per question that was answered."""
    files, complete = done_files(run, round, "groups")
    with ThreadPoolExecutor() as pool:
        tables = list(pool.map(_light, files))
    table = (
        pa.concat_tables(tables)
        if tables
        else pa.table({n: pa.array([], GROUP_SCHEMA.field(n).type) for n in LIGHT})
    ).combine_chunks()
    reward = _list_means(table["rewards"])
    numbers = {name: table[name].to_numpy() for name in ("agreement", "margin")} | {"reward": reward}
    words = {"fate": fates(table, reward, *band(run.config, round)), "role": _objects(table["role"])}
    sizes = tuple((path, t.num_rows) for path, t in zip(files, tables))
    return Index(
        table=table,
        words=words,
        numbers=numbers,
        texts=("id", "question", "gold", "answers"),
        files=sizes,
        complete=complete,
    )


def _light(path: Path) -> pa.Table:
    """With one thread to a file: its row groups are so many and small that to share them out costs more than to read them."""
    return pq.ParquetFile(path, memory_map=True).read(LIGHT, use_threads=False)


def fates(
    table: pa.Table, reward: NDArray[np.float64], shares: tuple[float, float], voted: bool
) -> NDArray[np.object_]:
    """`serl.rewards.vote.fate` of every group at once; "anchor" for those that are never trained on."""
    low, high = shares
    nobody = table["winner"].combine_chunks().is_null().to_numpy(zero_copy_only=False) & voted
    tie = table["tie"].to_numpy()
    anchor = pc.equal(table["role"], "anchor").to_numpy()
    cases = [anchor, nobody & tie, nobody, reward < low, reward > high]
    return np.select(cases, ["anchor", "tie", "no_votes", "too_hard", "too_easy"], "kept").astype(object)


def open_group(index: Index, row: int) -> dict:
    """One group, with its completions."""
    start = 0
    for path, num_rows in index.files:
        if row < start + num_rows:
            return index.rows([row])[0] | {"completions": _completions(path, row - start)}
        start += num_rows
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


RESPONSE = pa.schema(
    [
        (name, pa.string())
        for name in (
            "benchmark",
            "id",
            "mode",
            "response",
            "finish_reason",
            "gold",
            "subject",
            "level",
            "extracted",
            "verdict",
        )
    ]
    + [("sample", pa.int32()), ("label", pa.int32())]
)


def response_index(run: Run, round: int) -> Index:
    """One row per graded response."""
    files, complete = done_files(run, round, "grades")
    table = _json_lines(files, RESPONSE)
    words = {name: _objects(table[name]) for name in ("benchmark", "verdict", "mode")}
    return Index(
        table=table,
        words=words,
        numbers={},
        texts=("id", "response", "gold", "extracted"),
        files=(),
        complete=complete,
    )


INSTRUCTION = pa.schema(
    [
        ("text", pa.string()),
        ("id", pa.string()),
        ("like", pa.string()),
        ("rouge_l", pa.float64()),
        ("group", pa.int64()),
    ]
)


def instruction_index(run: Run, round: int, groups: Index) -> Index:
    """One row per text that was proposed: the rule or the near duplicate that it fell to, or what became of its group."""
    files, proposed = done_files(run, round, "candidates")
    rows = [row for path in files for row in from_jsonl(path.read_bytes())]
    passed = iter(_curated(run, round, [row["text"] for row in rows if not row.get("rejection")]))
    place = {id: i for i, id in enumerate(groups.table["id"].to_pylist())}
    out, fate, stage = [], [], []
    for row in rows:
        found = {"fate": row["rejection"]} if row.get("rejection") else next(passed)
        id = found.get("id")
        out.append(
            {
                "text": row["text"],
                "id": id,
                "like": found.get("like"),
                "rouge_l": found.get("rouge_l"),
                "group": place.get(id),
            }
        )
        where = (
            "candidates"
            if row.get("rejection")
            else "groups"
            if id and found["fate"] == "kept"
            else "problems"
        )
        stage.append(where)
        fate.append(_answered(place.get(id), groups) if where == "groups" else found["fate"])
    table = pa.Table.from_pylist(out, INSTRUCTION)
    named = {gives: found.name for gives in set(stage) if (found := run.config.giving(round, gives))}
    stage = [named.get(gives, gives) for gives in stage]
    words = {"fate": np.array(fate, dtype=object), "stage": np.array(stage, dtype=object)}
    near = {"rouge_l": np.array([row["rouge_l"] or 0.0 for row in out])}
    return Index(
        table=table,
        words=words,
        numbers=near,
        texts=("text", "id"),
        files=(),
        complete=proposed and groups.complete,
    )


def _answered(row: int | None, groups: Index) -> str:
    if row is not None:
        return str(groups.words["fate"][row])
    return "prompt_too_long" if groups.complete else "not_answered_yet"


def _curated(run: Run, round: int, texts: Sequence[str]) -> Iterable[dict]:
    """What curate said of each candidate, in order; of runs that kept no such record, what can be told from what was kept."""
    chosen = run.config.giving(round, "problems")
    manifest = run.manifest(run.shards(round, chosen.name)[0]) if chosen else None
    if manifest is None:
        return [{"fate": "not_curated_yet"}] * len(texts)
    paths = [run.path(manifest, file) for file in manifest.files]
    if len(paths) > 1:
        return from_jsonl(paths[1].read_bytes())
    ids = {row["question"]: row["id"] for row in from_jsonl(paths[0].read_bytes())}
    return [
        {"fate": "kept", "id": id}
        if (id := ids.pop(one_line(text), None))
        else {"fate": "duplicate_or_surplus"}
        for text in texts
    ]


def done_files(run: Run, round: int, gives: str) -> tuple[list[Path], bool]:
    """The first file of every shard that is done, and whether that is all of them."""
    stage = run.config.giving(round, gives)
    if stage is None:
        return [], True
    manifests = [run.manifest(shard) for shard in run.shards(round, stage.name)]
    paths = [run.path(m, m.files[0]) for m in manifests if m and m.files]
    for path in paths:
        if not path.is_file():
            raise RunError(
                f"{path}: missing, but its manifest names it; remove the manifest and resume to redo the shard"
            )
    return paths, all(manifests)


def _json_lines(paths: Sequence[Path], schema: pa.Schema) -> pa.Table:
    """The named fields of every line, null where a line has none; lone surrogates, which no UTF-8 can hold, are replaced."""
    tables = []
    for path in paths:
        rows = from_jsonl(path.read_bytes())
        columns = {name: [_storable(row.get(name)) for row in rows] for name in schema.names}
        tables.append(pa.table(columns, schema=schema))
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def _storable(value: str | int | None) -> str | int | None:
    return (
        value.encode("utf-8", "replace").decode("utf-8")
        if isinstance(value, str) and not value.isascii()
        else value
    )


def _list_means(column: pa.ChunkedArray) -> NDArray[np.float64]:
    lists = column.combine_chunks()
    sums = np.bincount(
        pc.list_parent_indices(lists).to_numpy(), lists.flatten().to_numpy(), minlength=len(lists)
    )
    return sums / np.maximum(1, pc.list_value_length(lists).to_numpy())


def _objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return column.to_numpy(zero_copy_only=False).astype(object)
