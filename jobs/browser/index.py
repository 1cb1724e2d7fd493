"""What a reader of a run looks through: instructions with their fates, groups with their votes, graded
responses.

An index holds the columns that lists and filters need, of the shards that are done; answers and token ids are
read when one is opened (see `groups`). Nothing is checked against its digest here: to read a page must not
cost the reading of a stage. Nothing here escapes text; pages do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serl.records import from_jsonl
from serl.run.rundir import Run, RunError
from serl.stages.kind import Stage
from serl.text.prompts import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a reader asked to see: words in `only` (empty: any), a text, an order."""

    only: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    sort: str = ""
    down: bool = False


@dataclass(frozen=True, kw_only=True)
class Index:
    """Rows of one kind of one round; `texts` are the columns that are searched.

    `complete`: every shard was done when it was made, so it will not change.
    """

    table: pa.Table
    texts: Sequence[str]
    files: Sequence[tuple[Path, int]] = ()
    complete: bool

    def __len__(self) -> int:
        return self.table.num_rows

    def find(self, wish: Wish) -> NDArray[np.int64]:
        """The rows that are wished for, in the order that is wished for, else the round's own."""
        keep, columns = np.ones(len(self), bool), self.table.column_names
        for name, word in wish.only.items():
            if word and name in columns:
                keep &= _truth(pc.equal(self.table[name], word))
        if wish.text:
            keep &= self._mentions(wish.text)
        rows = np.flatnonzero(keep)
        if wish.sort in columns and pa.types.is_floating(self.table[wish.sort].type):
            key = self.table[wish.sort].to_numpy()[rows]
            rows = rows[np.argsort(-key if wish.down else key, kind="stable")]
        return rows

    def _mentions(self, text: str) -> NDArray[np.bool_]:
        """Rows in which a text stands, capitals or not; in a list of texts, in any of them."""
        found = np.zeros(len(self), bool)
        for name in self.texts:
            column = self.table[name].combine_chunks()
            lists = pa.types.is_list(column.type)
            words = column.flatten() if lists else column
            here = _truth(pc.match_substring(words, text, ignore_case=True))
            found[pc.list_parent_indices(column).to_numpy()[here] if lists else here] = True
        return found

    def rows(self, numbers: Sequence[int]) -> list[dict]:
        return self.table.take(pa.array(numbers, pa.int64())).to_pylist()

    def counts(self, name: str) -> dict[str, int]:
        """How many rows have each word of a column, the most frequent first."""
        found = pc.value_counts(self.table[name]).to_pylist()
        found.sort(key=lambda row: -row["counts"])
        return {row["values"]: row["counts"] for row in found}


def _truth(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False)


def stages_giving(run: Run, round: int, gives: str) -> list[Stage]:
    return [s for s in run.config.at(round) if s.kind.gives == gives]


def done_files(run: Run, round: int, gives: str) -> tuple[list[tuple[Stage, Path]], bool]:
    """The first file of every shard that is done, with its stage, and whether that is all of them."""
    found, complete = [], True
    for stage in stages_giving(run, round, gives):
        manifests = [run.manifest(shard) for shard in run.shards(stage.round, stage.name)]
        found += [(stage, run.path(m, m.files[0])) for m in manifests if m and m.files]
        complete &= all(manifests)
    for _, path in found:
        if not path.is_file():
            remedy = "remove the manifest and resume to redo the shard"
            raise RunError(f"{path}: missing, but its manifest names it; {remedy}")
    return found, complete


# ------------------------------------------------------------------------------------------------ responses
_TEXTS = "benchmark id mode response finish_reason gold subject level extracted verdict stage".split()
RESPONSE = {name: pa.string() for name in _TEXTS} | {"sample": pa.int32(), "label": pa.int32()}


def response_index(run: Run, round: int) -> Index:
    """One row per graded response."""
    files, complete = done_files(run, round, "grades")
    rows = [row | {"stage": stage.name} for stage, path in files for row in from_jsonl(path.read_bytes())]
    return Index(
        table=_table(rows, RESPONSE), texts=("id", "response", "gold", "extracted"), complete=complete
    )


def _table(rows: Sequence[Mapping], types: Mapping[str, pa.DataType]) -> pa.Table:
    """The named fields of every row, null where it has none."""
    columns = {name: [_storable(row.get(name)) for row in rows] for name in types}
    return pa.table(columns, schema=pa.schema(types))


def _storable(value: str | int | None) -> str | int | None:
    """Lone surrogates, which no UTF-8 can hold, are replaced."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


# --------------------------------------------------------------------------------------------- instructions
INSTRUCTION = {name: pa.string() for name in ("text", "id", "like", "fate", "stage")}
INSTRUCTION |= {"rouge_l": pa.float64(), "group": pa.int64()}


def instruction_index(run: Run, round: int, groups: Index) -> Index:
    """One row per text that was proposed: what it fell to, or what became of its group."""
    files, complete = done_files(run, round, "candidates")
    place = {id: i for i, id in enumerate(groups.table["id"].to_pylist())}
    answered = bool(stages_giving(run, round, "groups"))  # else a training answers by itself, and leaves none
    by_stage: dict[str, list[dict]] = {}
    for stage, path in files:
        by_stage.setdefault(stage.name, []).extend(from_jsonl(path.read_bytes()))
    rows = [
        row | {"group": place.get(row["id"])} | ({"fate": _became(row, place, groups)} if answered else {})
        for name, proposed in by_stage.items()
        for row in _decided(run, run.config.stage(round, name), proposed)
    ]
    return Index(table=_table(rows, INSTRUCTION), texts=("text", "id"), complete=complete and groups.complete)


def _became(row: Mapping, place: Mapping[str, int], groups: Index) -> str:
    """The fate of a kept instruction is that of its group."""
    if row["fate"] != "kept":
        return row["fate"]
    if row["id"] in place:
        return groups.table["fate"][place[row["id"]]].as_py()
    return "prompt_too_long" if groups.complete else "not_answered_yet"


def _decided(run: Run, stage: Stage, proposed: Sequence[Mapping]) -> Iterator[dict]:
    """Every candidate of a stage with what was decided, and by which stage of the round."""
    reader = next(
        (s for s in stages_giving(run, stage.round, "problems") if stage in s.kind.reads(s, run.config)), None
    )
    answering = run.config.reader(reader) if reader else None
    passed = iter(_curated(run, reader, [row["text"] for row in proposed if not row.get("rejection")]))
    for row in proposed:
        told = {"text": row["text"], "id": None, "stage": stage.name}
        if row.get("rejection"):
            yield told | {"fate": row["rejection"]}
            continue
        found = told | {"stage": reader.name if reader else stage.name} | next(passed)
        yield found | ({"stage": answering.name} if found["fate"] == "kept" and answering else {})


def _curated(run: Run, reader: Stage | None, texts: Sequence[str]) -> Sequence[dict]:
    """What was said of each candidate; of runs that kept no such record, what can be told without."""
    manifest = run.manifest(run.shards(reader.round, reader.name)[0]) if reader else None
    if manifest is None:
        return [{"fate": "not_curated_yet"}] * len(texts)
    kept, *fates = (run.path(manifest, file) for file in manifest.files)
    if fates:
        return from_jsonl(fates[0].read_bytes())
    ids = {row["question"]: row["id"] for row in from_jsonl(kept.read_bytes())}
    found = (ids.pop(one_line(text), None) for text in texts)
    return [{"fate": "kept", "id": id} if id else {"fate": "duplicate_or_surplus"} for id in found]
