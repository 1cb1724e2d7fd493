"""A user's problem files: every fault has a place and a remedy."""

import gzip
import json
from pathlib import Path

import pytest

from serl.records import Problem
from serl.stages.sources import GeneratedProblems, HubProblems, JsonlProblems
from serl.text.problems import fingerprint, load_problems


def load(folder: Path, content: str | bytes | None, **fields: str) -> list[Problem]:
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
