"""Benchmark files brought into a data root: checked, copied whole, and missing ones named."""

import gzip
import json

import pytest

from evaluation import fetch as fetching
from evaluation.benchmark import Benchmark, Hub
from evaluation.fetch import content_sha256, fetch

ROWS = [{"id": i, "question": f"{i}+1?", "answer": str(i + 1)} for i in range(3)]


def described(path=None, **changes):
    digest = content_sha256(path) if path else None
    base = {"name": "b", "kind": "math", "version": "7", "licence": "-", "source": "somewhere", "file": "b.jsonl.gz", "num_rows": 3}
    return Benchmark(**(base | {"sha256": digest, "fields": {"id": "id"}} | changes))


def written(folder, rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder / "b.jsonl.gz"


def test_a_good_file_is_copied_and_then_there(tmp_path):
    benchmark = described(written(tmp_path / "source"))
    assert fetch(benchmark, tmp_path / "data", [tmp_path / "nowhere", tmp_path / "source"]).state == "fetched"
    assert content_sha256(tmp_path / "data" / "b.jsonl.gz") == benchmark.sha256
    assert fetch(benchmark, tmp_path / "data", []).state == "there"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["b.jsonl.gz"]


def test_a_missing_file_says_where_it_comes_from_and_what_helps(tmp_path):
    found = fetch(described(hub=Hub(dataset="x/y")), tmp_path, [])
    assert found.state == "missing" and "somewhere" in found.note and "--hub" in found.note


def test_wrong_rows_are_refused_and_another_version_only_when_not_wanted(tmp_path):
    path = written(tmp_path / "source")
    benchmark = described(path)
    written(tmp_path / "source", [{**row, "note": "later"} for row in ROWS])
    found = fetch(benchmark, tmp_path / "data", [tmp_path / "source"])
    assert found.state == "refused" and "--any-version" in found.note and not (tmp_path / "data").exists()
    assert fetch(benchmark, tmp_path / "data", [tmp_path / "source"], any_version=True).state == "fetched"
    written(tmp_path / "short", ROWS[:2])
    found = fetch(benchmark, tmp_path / "other", [tmp_path / "short"], any_version=True)
    assert found.state == "refused" and "2 rows" in found.note


def test_a_hub_dataset_is_written_under_our_field_names(tmp_path):
    """A local folder stands for the hub: the same loader reads both."""
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text(
        "".join(json.dumps({"problem": r["question"], "answer": r["answer"]}) + "\n" for r in ROWS)
    )
    benchmark = described(hub=Hub(dataset=str(tmp_path / "set"), rename={"problem": "question"}))
    found = fetch(benchmark, tmp_path / "data", [], hub=True)
    assert found.state == "fetched", found.note
    assert [p.question for p in fetching.read_problems(benchmark, tmp_path / "data" / "b.jsonl.gz")] == [r["question"] for r in ROWS]


def test_the_command_counts_what_is_there(tmp_path, capsys):
    assert fetching.main(["gsm8k", "aime24", "--data", str(tmp_path)]) == 1
    assert "0 of 2 benchmarks are there; not: gsm8k, aime24" in capsys.readouterr().out
