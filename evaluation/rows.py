"""The rows of a user's data file, whatever its format: (place, row) one by one, with a sentence for what
cannot be read.
"""

import csv
import difflib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

Rows = Iterator[tuple[str, object]]

def value_at(row: dict, name: str) -> object:
    """What a field holds; of a name that is none itself, its parts between dots lead to it. Raises KeyError.
    """
    if name in row:
        return row[name]
    value: object = row
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise KeyError(name)
    return value


def rows(path: Path) -> Rows:
    """By the name of the file: Parquet, CSV, TSV, else JSON lines or one JSON array; `.gz` and `.zst` before
    that.
    """
    kind = Path(path.stem).suffix if path.suffix in (".gz", ".zst") else path.suffix
    data = _bytes(path)
    if kind == ".parquet":
        return _parquet(data, path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not UTF-8 text ({e}); convert it") from e
    if kind in (".csv", ".tsv"):
        return _table(text, path, "," if kind == ".csv" else "\t")
    return _array(text, path) if kind == ".json" and text.lstrip().startswith("[") else _lines(text, path)


def _bytes(path: Path) -> bytes:
    import pyarrow as pa  # for its zstd; plans and completion do without

    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    try:
        data = path.read_bytes()
        return data if compression is None else pa.input_stream(io.BytesIO(data), compression).read()
    except FileNotFoundError:
        there = os.listdir(path.parent) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=3)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "put it there or change the path in the configuration"
        )
        raise ValueError(f"{path}: no such file; {hint}") from None
    except OSError as e:
        remedy = f"; a name in {path.suffix} must be a {compression} file" if compression else ""
        raise ValueError(f"{path}: cannot be read ({e}){remedy}") from e


def _lines(text: str, path: Path) -> Rows:
    for number, line in enumerate(
        text.split("\n"), 1
    ):  # not splitlines: JSON strings may hold U+2028 and its like
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as e:
                raise ValueError(
                    f"{path}:{number}: not a JSON object ({e}); write one object per line"
                ) from e


def _array(text: str, path: Path) -> Rows:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not a JSON array ({e}); write a list of objects, or one per line") from e
    yield from ((f"{path} item {number}", row) for number, row in enumerate(found, 1))


def _table(text: str, path: Path, delimiter: str) -> Rows:
    """Every value is the text that stands there, `007` too."""
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}:{reader.line_num}: not as many values as the {len(reader.fieldnames or ())} "
                    "columns of the first line; quote texts with delimiters"
                )
            yield f"{path}:{reader.line_num}", row
    except csv.Error as e:
        raise ValueError(f"{path}:{reader.line_num}: not a table of texts ({e}); mend the quotes") from e


def _parquet(data: bytes, path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: no Parquet file ({e}); write it again, or as JSON lines") from e
    yield from ((f"{path} row {number}", row) for number, row in enumerate(table.to_pylist(), 1))
