"""Grading stored responses, and grading them again from a run's files alone."""

import dataclasses
import hashlib
import json

import pytest

from evaluation import grade as grading
from evaluation.answers import SURE
from evaluation.benchmark import Problem
from evaluation.grade import Rules, grade, regrade
from evaluation.stored import read_rows, stored
from evaluation.summary import summarise
from evaluation.verifier import Verifier

PROBLEMS = [
    Problem(benchmark="sums", id="a", question="?", gold="12"),
    Problem(benchmark="sums", id="b", question="?", gold="x+1"),
    Problem(benchmark="letters", id="a", question="?", gold="B", kind="choice", choices=("1", "2", "3")),
]


def response(benchmark, problem, text, sample=0, mode="greedy", finish_reason="stop"):
    return {
        "benchmark": benchmark,
        "id": problem,
        "sample": sample,
        "mode": mode,
        "response": text,
        "finish_reason": finish_reason,
    }


GREEDY = [
    response("sums", "a", r"\boxed{12.0}"),
    response("sums", "b", r"\boxed{2+x}"),
    response("letters", "a", "The answer is (B)."),
]
SAMPLES = [
    response("sums", "a", text, i, "sample")
    for i, text in enumerate([r"\boxed{12}", "The answer is 12.", r"\boxed{7}", "dunno"])
]


@pytest.fixture(scope="module")
def verifier():
    with Verifier(limit_s=3.0) as pool:
        yield pool


def stored_run(folder, grades):
    """A run directory with one scored round in one shard."""
    score = folder / "round_001" / "score"
    score.mkdir(parents=True)
    data = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in grades).encode()
    (score / "shard_00000.7.jsonl").write_bytes(data)
    entry = {
        "name": "shard_00000.7.jsonl",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(grades),
    }
    (score / "shard_00000.json").write_text(json.dumps({"files": [entry]}))
    return folder


def test_each_response_gets_its_verdict_in_order(verifier):
    grades = grade(PROBLEMS, GREEDY + SAMPLES, verifier)
    assert [row.verdict for row in grades] == [
        "correct",
        "wrong",
        "correct",
        "correct",
        "correct",
        "wrong",
        "unparsed",
    ]
    assert [row.extracted for row in grades[:3]] == ["12.0", "2+x", "B"]
    assert [row.response for row in grades] == [row["response"] for row in GREEDY + SAMPLES]


def test_each_grade_says_how_plainly_its_answer_was_said(verifier):
    texts = [
        r"\boxed{12}",
        "The answer is 12.",
        "<answer>7</answer>",
        "There are 12 of them.",
        "dunno",
        "<think>The answer is 12",
    ]
    rows = [response("sums", "a", text, i, "sample") for i, text in enumerate(texts)]
    grades = grade(PROBLEMS, rows, verifier)
    assert [row.reading for row in grades] == ["boxed", "announced", "tagged", "last", "", ""]
    summary = summarise(grades)["sums"]
    assert {level: (found.answers, found.right) for level, found in summary.readings.items()} == {
        "boxed": (1, 1),
        "announced": (1, 1),
        "tagged": (1, 0),
        "last": (1, 1),
    }
    assert (summary.thoughts.responses, summary.thoughts.unfinished) == (1, 1)
    sure = grade(PROBLEMS, rows, verifier, Rules(levels=SURE))
    assert [row.verdict for row in sure] == [
        "correct",
        "correct",
        "wrong",
        "unparsed",
        "unparsed",
        "unparsed",
    ]


def test_rows_stored_before_there_were_readings_are_read(tmp_path, verifier):
    row = dataclasses.asdict(grade(PROBLEMS, GREEDY[:1], verifier)[0])
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps({key: value for key, value in row.items() if key not in ("reading", "letters")}))
    (old,) = read_rows(path)
    assert (old.reading, old.letters, old.verdict) == ("", "official", "correct") and summarise([old])["sums"].readings == {}


def test_what_was_cut_off_is_not_guessed_at(verifier):
    (row,) = grade(PROBLEMS, [response("sums", "a", "There are 12", finish_reason="length")], verifier)
    assert row.verdict == "unparsed" and row.reading == ""


def test_a_letter_is_read_by_the_rules_that_its_row_names(verifier):
    asked = [response("letters", "a", "The answer is **(B)**. I hope this helps.")]
    (official,) = grade(PROBLEMS, asked, verifier)
    (native,) = grade(PROBLEMS, asked, verifier, Rules(letters="native"))
    assert (official.verdict, native.verdict, native.extracted) == ("unparsed", "correct", "B")
    assert regrade([native], verifier) == [native] and regrade([official], verifier) == [official]


def test_only_finished_samples_vote(verifier):
    cut = response("sums", "a", r"\boxed{12}", 4, "sample", finish_reason="length")
    grades = grade(PROBLEMS, [*GREEDY, *SAMPLES, cut], verifier)
    assert [row.label for row in grades] == [None, None, None, 1, 1, 0, None, None]


def test_the_summary_counts_every_response_and_names_its_metrics(verifier):
    summary = summarise(grade(PROBLEMS, GREEDY + SAMPLES, verifier))
    sums = summary["sums"]
    assert {name: result.value for name, result in sums.metrics.items()} == {
        "pass_at_1": 0.5,
        "avg_at_4": 0.5,
        "pass_at_4": 1.0,
        "maj_at_4": 1.0,
    }
    assert sums.counts["greedy"] == {"correct": 1, "wrong": 1, "unparsed": 0, "undecided": 0}
    assert sum(sums.counts["sample"].values()) == 4
    assert summary["letters"].metrics["pass_at_1"].value == 1.0


def test_grading_stored_rows_again_changes_nothing(verifier):
    grades = grade(PROBLEMS, GREEDY + SAMPLES, verifier)
    assert regrade(grades, verifier) == grades


def test_a_response_to_an_unknown_problem_is_refused(verifier):
    with pytest.raises(ValueError, match="'zz' of sums"):
        grade(PROBLEMS, [response("sums", "zz", "5")], verifier)


def test_the_command_grades_a_run_again_and_counts_the_changes(tmp_path, verifier, capsys):
    grades = grade(PROBLEMS, GREEDY + SAMPLES, verifier)
    stale = [dataclasses.replace(grades[0], verdict="undecided"), *grades[1:]]
    assert grading.main([str(stored_run(tmp_path, stale)), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 7 verdicts differ" in printed and "maj_at_4" in printed and "round_001" in printed


def test_scores_that_a_trial_shares_with_others_are_among_its_own(tmp_path, verifier):
    run = stored_run(tmp_path / "runs" / "trial", grade(PROBLEMS, GREEDY, verifier))
    other = stored_run(tmp_path / "other", grade(PROBLEMS, GREEDY, verifier))
    (tmp_path / "shared").mkdir()
    (other / "round_001" / "score").rename(tmp_path / "shared" / "key")
    (run / "run.json").write_text(json.dumps({"shared": {"r000-score": "key", "r001-propose": "else"}}))
    assert [round for round, _ in stored(run)] == ["round_000", "round_001"]


def test_a_file_that_differs_from_its_manifest_or_is_malformed_is_refused(tmp_path, verifier):
    run = stored_run(tmp_path, grade(PROBLEMS, GREEDY, verifier))
    path = run / "round_001" / "score" / "shard_00000.7.jsonl"
    path.write_text(path.read_text().replace("12.0", "13.0"))
    with pytest.raises(ValueError, match="differs from what shard_00000.json recorded"):
        list(stored(run))
    path.write_text('{"benchmark": "sums"}\n')
    with pytest.raises(ValueError, match=r"jsonl:1: not a stored grade"):
        read_rows(path)
    with pytest.raises(ValueError, match="no round has scores"):
        list(stored(tmp_path / "nothing"))
