"""A user's problem files: every fault has a place and a remedy."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.domain import ChoiceAnswers, MathAnswers, NumberAnswers
from serl.records import Problem
from serl.stages.sources import GeneratedProblems, HubProblems, JsonlProblems
from serl.text.problems import check_source, fingerprint, load_problems

GAS = "Which gas?\nA. neon\nB. helium"


def load(folder: Path, content: str | bytes | None, **fields: object) -> list[Problem]:
    (folder / "seeds").mkdir(exist_ok=True)
    if content is not None:
        (folder / "seeds/s.jsonl").write_bytes(content.encode() if isinstance(content, str) else content)
    return load_problems(JsonlProblems(path="s.jsonl", **fields), data_root=folder, corpus=folder)


def test_lines_become_problems_in_order(tmp_path):
    problems = load(
        tmp_path,
        '{"question": "one", "answer": 1}\n\n{"question": " two", "answer": "x", "more": []}\n',
        gold="answer",
    )
    assert problems == [
        Problem(id="000000", question="one", gold="1"),
        Problem(id="000001", question=" two", gold="x"),
    ]
    assert load(tmp_path, '{"q": "one"}', question="q") == [Problem(id="000000", question="one", gold=None)]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_unicode_line_separators_inside_a_text_do_not_end_the_line(tmp_path, separator):
    text = f"one{separator}two"
    line = json.dumps({"question": text}, ensure_ascii=False)
    assert load(tmp_path, line + "\n" + line)[1].question == text


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    assert [
        p.question for p in load(tmp_path, b'\xef\xbb\xbf{"question": "one"}\r\n{"question": "two"}\r\n')
    ] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"s\.jsonl: no such file; put it there or change the path"),
        ("", r"s\.jsonl: empty; give at least one problem"),
        ("\n \n", r"s\.jsonl: empty"),
        ('{"question": "a"}\n{"question": \n', r"s\.jsonl:2: not a JSON object .*one object per line"),
        ('{"question": "a"}\n\n[1]\n', r"s\.jsonl:3: list, not a JSON object"),
        ("3", r"s\.jsonl:1: int, not a JSON object"),
        ("[" * 100_000, r"s\.jsonl:1: not a JSON object"),
        ('{"question": ' + "1" * 5000 + "}", r"s\.jsonl:1: not a JSON object"),
        (
            '{"problem": "a", "id": 3}',
            r"s\.jsonl:1: no field 'question'; it has 'problem', 'id': name the right one",
        ),
        ("{}", r"s\.jsonl:1: no field 'question'; it has none"),
        ('{"question": " "}', r"s\.jsonl:1: field 'question' is ' ', not a text or number"),
        ('{"question": null}', r"s\.jsonl:1: field 'question' is None"),
        ('{"question": true}', r"s\.jsonl:1: field 'question' is True"),
        ('{"question": ["a"]}', r"s\.jsonl:1: field 'question' is \['a'\]"),
        ('{"question": "\\ud800 and 1"}', r"s\.jsonl:1: field 'question' is .*mend the row"),
        ('{"question": NaN}', r"s\.jsonl:1: field 'question' is nan.*mend the row"),
        (b'{"question": "caf\xe9"}', r"s\.jsonl: not UTF-8 text .*convert it"),
    ],
)
def test_a_fault_names_file_line_field_and_remedy(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, content)


def test_compressed_files_are_read_and_false_ones_refused(tmp_path):
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b'{"question": "one"}'))
    source = JsonlProblems(path=str(tmp_path / "p.jsonl.gz"))
    assert load_problems(source, data_root=tmp_path, corpus=tmp_path)[0].question == "one"
    for damage in (
        b"plain",
        gzip.compress(b"x" * 1000)[:-20],
        gzip.compress(b"x" * 1000)[:12] + b"\xff" * 30,
    ):
        (tmp_path / "p.jsonl.gz").write_bytes(damage)
        with pytest.raises(ValueError, match=r"p\.jsonl\.gz: cannot be read .*must be a gzip file"):
            load_problems(source, data_root=tmp_path, corpus=tmp_path)


def test_a_folder_is_not_a_file_of_problems(tmp_path):
    (tmp_path / "seeds/s.jsonl").mkdir(parents=True)
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path, None)


def test_generated_problems_come_from_the_corpus(tmp_path):
    for name in ("seeds", "problems"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "7", "question": name, "answer": "3"}))
        (problem,) = load_problems(GeneratedProblems(part=name), data_root=Path("/nowhere"), corpus=tmp_path)
        assert (problem.question, problem.gold) == (name, "3")


def test_a_dataset_that_is_a_local_folder_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("datasets")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.jsonl").write_text(
        '{"problem": "one", "answer": 1}\n{"problem": "two", "answer": 2}\n'
    )
    source = HubProblems(name=str(tmp_path / "d"), question="problem", gold="answer")
    assert [(p.question, p.gold) for p in load_problems(source, data_root=tmp_path, corpus=tmp_path)] == [
        ("one", "1"),
        ("two", "2"),
    ]
    with pytest.raises(ValueError, match=r"dataset .*nowhere.*cannot be loaded"):
        load_problems(HubProblems(name=str(tmp_path / "nowhere")), data_root=tmp_path, corpus=tmp_path)


def test_a_fingerprint_tells_edited_problems_apart():
    a, b = Problem(id="0", question="a"), Problem(id="1", question="b")
    assert fingerprint([a, b]) == fingerprint([a, b]) != fingerprint([b, a])
    assert fingerprint([a]) != fingerprint([Problem(id="0", question="a", gold="1")])


# ------------------------------------------------------------------------------------------------ formats
ROWS = [{"question": "one", "answer": "007"}, {"question": 'two,\n"2"', "answer": "b"}]


def _csv(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["question", "answer"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def _zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


LINES = "\n".join(map(json.dumps, ROWS)).encode()
FORMATS = {
    "s.jsonl": LINES,
    "s.json": json.dumps(ROWS, indent=1).encode(),
    "lines.json": LINES,
    "s.csv": _csv(","),
    "s.tsv": _csv("\t"),
    "s.parquet": _parquet(),
    "s.jsonl.zst": _zst(LINES),
    "s.csv.gz": gzip.compress(_csv(",")),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_read_by_what_its_name_says(tmp_path, name):
    (tmp_path / name).write_bytes(FORMATS[name])
    source = JsonlProblems(path=str(tmp_path / name), gold="answer")
    found = load_problems(source, data_root=tmp_path, corpus=tmp_path)
    assert [(p.question, p.gold) for p in found] == [(r["question"], r["answer"]) for r in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", b"question,answer\none\n", r"s\.csv:2: not as many values as the 2 columns"),
        ("s.csv", b"question\none,two\n", r"s\.csv:2: not as many values as the 1 columns"),
        ("s.csv", b'question\n"one\n', r"s\.csv:1: not a table of texts .*mend the quotes"),
        ("s.parquet", b"PAR1", r"s\.parquet: no Parquet file"),
        ("s.json", b'[{"question": ', r"s\.json: not a JSON array"),
        ("s.json", b"[3]", r"s\.json item 1: int, not a JSON object"),
        ("s.jsonl.zst", b"plain", r"s\.jsonl\.zst: cannot be read .*must be a zstd file"),
    ],
)
def test_a_fault_of_any_format_has_a_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_problems(JsonlProblems(path=str(tmp_path / name)), data_root=tmp_path, corpus=tmp_path)


def test_a_dataset_that_was_saved_to_disk_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "many")
    for name in ("one", "many"):
        source = HubProblems(name=str(tmp_path / name), gold="answer")
        found = load_problems(source, data_root=tmp_path, corpus=tmp_path)
        assert [p.gold for p in found] == ["007", "b"]
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        source = HubProblems(name=str(tmp_path / "many"), split="test")
        load_problems(source, data_root=tmp_path, corpus=tmp_path)


# ------------------------------------------------------------------------------------------------ fields and golds
def test_a_dotted_name_leads_into_a_nested_field(tmp_path):
    row = {"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": 2}, "a.b": "x"}
    fields = {"question": "prompt.0.content", "gold": "reward_model.ground_truth"}
    (problem,) = load(tmp_path, json.dumps(row), **fields)
    assert (problem.question, problem.gold) == ("1+1?", "2")
    assert load(tmp_path, json.dumps(row), question="a.b")[0].question == "x"
    for name in ("prompt.1.content", "prompt.x", "reward_model.truth", "a.b.c"):
        with pytest.raises(ValueError, match=f"no field '{name}'; it has 'prompt', 'reward_model', 'a.b'"):
            load(tmp_path, json.dumps(row), question=name)


@pytest.mark.parametrize(
    ("published", "golds"),
    [
        (["One and four.\n#### 5", "#### 1,234"], ["5", "1,234"]),
        ([r"Four, so $\boxed{\frac{1}{2}}$.", r"\boxed{3}"], [r"\frac{1}{2}", "3"]),
        (["5", r"\boxed{3}"], ["5", r"\boxed{3}"]),
        ([["5"], ["a", "b"]], ["5", "a\nb"]),
        (["two\nlines"], ["two lines"]),
    ],
)
def test_the_rule_of_golds_is_what_all_rows_look_like(tmp_path, published, golds):
    rows = "\n".join(json.dumps({"question": "q", "answer": p}) for p in published)
    assert [p.gold for p in load(tmp_path, rows, gold="answer")] == golds


def test_the_rule_of_golds_can_be_named(tmp_path):
    row = json.dumps({"question": "q", "answer": "5 #### 6"})
    assert load(tmp_path, row, gold="answer", gold_rule="as_is")[0].gold == "5 #### 6"


@pytest.mark.parametrize(
    ("row", "choices", "more", "gold"),
    [
        ({"options": ["x", "y"], "answer": "B"}, "options", {}, "B"),
        ({"options": ["A) x", "B) y"], "answer": "B"}, "options", {}, "B"),
        ({"options": {"label": ["A", "B"], "text": ["x", "y"]}, "answer": "B"}, "options", {}, "B"),
        ({"opa": "x", "opb": "y", "answer": 1}, ("opa", "opb"), {"gold_rule": "index"}, "B"),
    ],
)
def test_a_question_has_its_options_below_it(tmp_path, row, choices, more, gold):
    text = json.dumps({"question": "Which?"} | row)
    (problem,) = load(tmp_path, text, gold="answer", choices=choices, **more)
    assert (problem.question, problem.gold) == ("Which?\nA. x\nB. y", gold)


def test_options_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="field 'options' is 'x', not a list of 2 to 26 texts"):
        load(tmp_path, json.dumps({"question": "Which?", "options": "x"}), choices="options")


@pytest.mark.parametrize(
    ("answers", "row", "fields", "message"),
    [
        (MathAnswers(), {"answer": "word " * 300}, {}, r"problem 2 \('q'\): .*kind math .*nothing is read.*gold_rule null"),
        (ChoiceAnswers(), {"answer": "A"}, {}, r"problem 1 .*no lettered options"),
        (NumberAnswers(), {"answer": "many"}, {}, r"problem 2 .*'many', which is no number"),
    ],
)
def test_a_source_whose_golds_do_not_fit_is_refused_with_its_first_row(tmp_path, answers, row, fields, message):
    rows = [{"question": "q", "answer": "5"}, {"question": "q"} | row]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = JsonlProblems(path=str(tmp_path / "s.jsonl"), gold="answer", **fields)
    with pytest.raises(ValueError, match=message):
        check_source(source, tmp_path, {}, answers)
    (tmp_path / "s.jsonl").write_text(json.dumps({"question": GAS, "answer": "1" if answers.kind != "choice" else "A"}))
    check_source(source, tmp_path, {}, answers)
