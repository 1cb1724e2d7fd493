"""Overlap between questions: exact, by runs of thirteen words, and neither."""

import json

from evaluation.overlap import main, overlap, overlaps, words
from serl.run.rundir import Run
from tests.conftest import SMALL, run_config

LONG = "a train leaves the town at noon and travels sixty miles in one hour how fast does it go"


def test_case_spacing_and_punctuation_do_not_count():
    assert words("What is  $2+3$?") == words("what is 2 + 3") == ("what", "is", "2", "+", "3")
    assert words("a well-known fact") == words("a well known fact")


def test_operators_count_for_in_short_questions_they_are_all_that_differs():
    assert overlap(["Compute 9 + 6."], ["Compute 9 - 6."]).exact_ours == 0
    assert words("2 x-1 - y") == ("2", "x", "-", "1", "-", "y")


def test_several_sets_at_once_share_what_each_would_alone():
    theirs = [LONG, "What is 2+3?", "something else"]
    sets = {"a": [LONG, "new"], "b": ["what is 2 + 3", f"On Monday {LONG}"], "c": []}
    assert overlaps(sets, theirs) == {name: overlap(ours, theirs) for name, ours in sets.items()}


def test_exact_repetitions_and_shared_runs_are_told_apart():
    found = overlap([LONG, "What is 2+3?", "quite new", f"On Monday {LONG}"], [LONG.upper() + "?", "what is 2 + 3", "something else"])
    assert (found.exact_ours, found.exact_theirs) == (2, 2)
    assert (found.runs_ours, found.runs_theirs) == (3, 2)
    assert found.examples[0] == (0, 0)


def test_twelve_words_in_a_row_are_not_enough():
    twelve = " ".join(LONG.split()[:12])
    assert overlap([f"{twelve} x"], [f"{twelve} y"]).runs_ours == 0
    thirteen = " ".join(LONG.split()[:13])
    assert overlap([f"{thirteen} x"], [f"{thirteen} y"]).runs_ours == 1


def test_the_command_reads_files_of_questions(tmp_path, capsys):
    rows = [{"id": "a", "question": LONG, "answer": "1", "kind": "k"}]
    (tmp_path / "arithmetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ours.jsonl").write_text(json.dumps({"text": LONG}) + "\n")
    assert main([str(tmp_path / "ours.jsonl"), "--data", str(tmp_path), "--benchmarks", "arithmetic"]) == 0
    assert "ours.jsonl" in capsys.readouterr().out


def test_benchmarks_of_a_runs_own_are_compared_too(tmp_path, capsys):
    """They are described in the run file alone, and no shipped description has their name."""
    (tmp_path / "ours.jsonl").write_text(json.dumps({"text": LONG}) + "\n")
    (tmp_path / "mine.jsonl").write_text(json.dumps({"question": LONG, "answer": "x"}) + "\n")
    rows = [{"id": "a", "question": "What is 1?", "answer": "1", "kind": "k"}]
    (tmp_path / "arithmetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"mine": {"file": "mine.jsonl", "answers": {"kind": "text"}}}
    section = {"shards": 1, "benchmarks": ["mine"], "own": own, "max_tokens": 60}
    tree = {key: SMALL[key] for key in ("name", "base", "prompts", "engine")} | {"rounds": 0}
    run = Run.create(tmp_path / "runs/own", run_config(tree | {"stages": ["score"], "score": section}), "x")
    asked = ["--data", str(tmp_path), "--benchmarks", "arithmetic"]
    assert main([str(tmp_path / "ours.jsonl"), *asked, "--run", str(run.root)]) == 0
    (line,) = [line.split() for line in capsys.readouterr().out.splitlines() if " mine " in line]
    assert line[1:6] == ["mine", "1", "1", "1", "1"]
