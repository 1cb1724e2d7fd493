"""Benchmark files: the shipped descriptions load, real files fit them, bad files are refused by file and line."""

import gzip
import json
import os
from pathlib import Path

import pytest

from evaluation.benchmark import (
    DESCRIPTIONS,
    Benchmark,
    benchmark_names,
    load_benchmark,
    load_problems,
    load_shots,
)
from evaluation.grade import grade, regrade
from evaluation.verifier import Verifier

ROWS = [{"id": "a", "question": "1+1?", "answer": "2", "kind": "sum"}, {"id": "b", "question": "2+2?", "answer": 4, "kind": "sum"}]


def real_folder():
    folder = Path(os.environ.get("SERL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "benchmarks"
    if not folder.is_dir():
        pytest.skip(f"no real benchmark files in {folder} (SERL_TEST_DATA names their folder)")
    return folder


def written(folder, rows, name="arithmetic.jsonl"):
    (folder / name).write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return [folder]


def test_each_shipped_description_loads_under_its_own_name():
    assert {"arithmetic", "arithmetic_choice", "gsm8k", "math_500", "mmlu_pro"} <= set(benchmark_names())
    assert all(load_benchmark(name).name == name for name in benchmark_names())


def test_an_unknown_benchmark_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="math_500"):
        load_benchmark("math500")


def test_problems_keep_their_ids_golds_and_subjects(tmp_path):
    problems = load_problems(load_benchmark("arithmetic"), written(tmp_path, ROWS))
    assert [(p.id, p.gold, p.subject, p.kind) for p in problems] == [("a", "2", "sum", "math"), ("b", "4", "sum", "math")]


def test_the_first_folder_with_the_file_wins_and_gzip_is_read(tmp_path):
    (tmp_path / "empty").mkdir()
    benchmark = load_benchmark("arithmetic").model_copy(update={"file": "arithmetic.jsonl.gz"})
    with gzip.open(tmp_path / "arithmetic.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    assert len(load_problems(benchmark, [tmp_path / "empty", tmp_path])) == 2


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([ROWS[0], {"id": "b", "question": "?", "kind": "sum"}], r"arithmetic.jsonl:2: field 'answer' is missing"),
        ([ROWS[0], {**ROWS[1], "answer": ["4"]}], r"arithmetic.jsonl:2: field 'answer' is not text"),
        ([ROWS[0], "{not json\n"], r"arithmetic.jsonl:2: not JSON"),
        ([ROWS[0], "[1]\n"], r"arithmetic.jsonl:2: not a JSON object"),
        ([ROWS[0], ROWS[0]], r"arithmetic.jsonl:2: id 'a' occurs twice"),
        ([], r"arithmetic.jsonl: the file is empty"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(tmp_path, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_problems(load_benchmark("arithmetic"), written(tmp_path, rows))


def test_a_wrong_row_count_a_missing_file_and_a_false_gzip_are_refused(tmp_path):
    benchmark = load_benchmark("arithmetic").model_copy(update={"num_rows": 3})
    with pytest.raises(ValueError, match="2 rows, but arithmetic version 1 has 3"):
        load_problems(benchmark, written(tmp_path, ROWS))
    with pytest.raises(ValueError, match=r"gsm8k.jsonl.gz is in none of"):
        load_problems(load_benchmark("gsm8k"), [tmp_path])
    (tmp_path / "gsm8k.jsonl.gz").write_text("plain text")
    with pytest.raises(ValueError, match="not gzip"):
        load_problems(load_benchmark("gsm8k"), [tmp_path])


def test_a_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress("".join(json.dumps({"idx": i, "question": "?", "answer": "1"}) + "\n" for i in range(2000)).encode())
    (tmp_path / "gsm8k.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged after line"):
        load_problems(load_benchmark("gsm8k"), [tmp_path])


def test_a_gold_letter_beyond_the_choices_is_refused(tmp_path):
    row = {"id": "a", "question": "?", "choices": ["x", "y"], "answer": "C", "subject": "s"}
    with pytest.raises(ValueError, match=r"arithmetic_choice.jsonl:1: the gold 'C'"):
        load_problems(load_benchmark("arithmetic_choice"), written(tmp_path, [row], "arithmetic_choice.jsonl"))
    assert load_problems(load_benchmark("arithmetic_choice"), written(tmp_path, [{**row, "answer": "B"}], "arithmetic_choice.jsonl"))


def test_an_unknown_key_in_a_description_is_refused(tmp_path):
    (tmp_path / "arithmetic.yaml").write_text((DESCRIPTIONS / "arithmetic.yaml").read_text() + "metrics: 3\n")
    with pytest.raises(ValueError, match="metrics"):
        load_benchmark("arithmetic", tmp_path)


@pytest.mark.parametrize("name", ["math_500", "gsm8k", "mmlu_pro"])
def test_the_real_file_fits_its_description(name):
    folder = real_folder()
    benchmark = load_benchmark(name)
    assert len(load_problems(benchmark, [folder])) == benchmark.num_rows
    assert len(load_shots(benchmark, [folder])) == (70 if name == "mmlu_pro" else 0)


# ------------------------------------------------------------------------------------------------ domains
def described(**fields: object) -> Benchmark:
    return Benchmark.model_validate_json(json.dumps({"name": "mine", "file": "mine.csv"} | fields))


@pytest.mark.parametrize(
    ("answers", "rows", "responses", "verdicts"),
    [
        (
            {"kind": "text"},
            [{"question": "Who?", "answer": ["Marie Curie", "Curie"]}],
            ["The answer is Curie.", r"\boxed{\text{marie curie}}", "The answer is Bohr", ""],
            ["correct", "correct", "wrong", "unparsed"],
        ),
        (
            {"kind": "number", "unit": "km", "tolerance": 0.01},
            [{"question": "How far?", "answer": 100}],
            ["The answer is 100.5 km", "The answer is 100000 m", "It is 102 km long.", "The answer is 5 kg"],
            ["correct", "correct", "wrong", "unparsed"],
        ),
        (
            {"kind": "choice"},
            [{"question": "Which?", "answer": "B", "options": ["x^2", "one half"]}],
            ["The answer is (B)", "The answer is one half", "The answer is A", "Who knows"],
            ["correct", "correct", "wrong", "unparsed"],
        ),
        (
            {"kind": "python", "path": "tests.unit.reading:shouted"},
            [{"question": "Say yes", "answer": "yes yes!"}],
            ["I say YES", "I say NO", "I say nothing", ""],
            ["correct", "wrong", "unparsed", "unparsed"],
        ),
    ],
)
def test_a_benchmark_of_any_domain_is_graded_by_its_rules(tmp_path, answers, rows, responses, verdicts):
    fields = {"choices": "options"} if answers["kind"] == "choice" else {}
    benchmark = described(answers=answers, fields=fields, file="mine.jsonl")
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    problems = load_problems(benchmark, [tmp_path])
    if fields:
        assert problems[0].question == "Which?\nA. x^2\nB. one half"
    rows = [
        {"benchmark": "mine", "id": "0", "sample": i, "mode": "sample", "response": r, "finish_reason": "stop"}
        for i, r in enumerate(responses)
    ]
    with Verifier() as verifier:
        graded = grade(problems, rows, verifier)
        assert [row.verdict for row in graded] == verdicts
        assert [row.verdict for row in regrade(graded, verifier)] == verdicts
    silent = [row.label is None for row in graded]
    assert silent == [v == "unparsed" for v in verdicts]


def test_a_benchmark_may_be_a_table(tmp_path):
    (tmp_path / "mine.csv").write_text("question,answer\n1+1?,2\n")
    assert load_problems(described(kind="math"), [tmp_path])[0].gold == "2"


def test_answers_say_the_kind_alone():
    with pytest.raises(ValueError, match="says kind and prompt too"):
        described(answers={"kind": "text"}, kind="math")
    with pytest.raises(ValueError, match="needs kind letter and the choices"):
        described(answers={"kind": "choice"})


def test_a_shipped_description_states_version_licence_and_source():
    for name in benchmark_names():
        benchmark = load_benchmark(name)
        assert "not stated" not in (benchmark.licence, benchmark.source) and benchmark.version != "unversioned"
