"""Several models in one report: paired by problem, honest about what was asked differently, and reported apart from what is chosen by."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from report_run import SCORE, grades, publish

from jobs.reporting.policies import MAX_ALL_PAIRS
from jobs.reporting.side_by_side import side_by_side
from jobs.reporting.written import write_side_by_side
from serl.records import to_jsonl
from serl.run.rundir import Run, RunError
from tests.conftest import ROOT, run_config


def evaluation(data: Path, tree: dict, name: str, skill: float, *, gold: str = "1", **changes: object) -> Run:
    """A run of nothing but round 0, with two benchmarks and one to choose by."""
    section = SCORE | {"benchmarks": ["sums", "choices"], "validation": ["check"]} | changes
    whole = {key: tree[key] for key in ("base", "prompts", "engine")} | {
        "name": name,
        "rounds": 0,
        "stages": ["score"],
        "score": section,
    }
    run = Run.create(data / "runs" / name, run_config(whole), "x")
    do_score(run, 0, skill, gold)
    return run


def do_score(run: Run, round: int, skill: float, gold: str = "1") -> None:
    rows = [
        r
        for i, name in enumerate(("sums", "choices", "check"))
        for r in grades(name, 150, skill if i != 1 else 0.3, 7 * i + round)
    ]
    lines = (
        to_jsonl(rows).replace(b'"gold": "1"', json.dumps({"gold": gold}).encode()[1:-1])
        if gold != "1"
        else to_jsonl(rows)
    )
    publish(run, round, "score", 0, lines, {})
    publish(run, round, "score", 1, b"", {})


def test_models_are_compared_with_the_first_on_the_same_problems_and_never_on_what_is_chosen_by(
    tmp_path, small_tree
):
    for name, skill in (("weak", 0.4), ("strong", 0.8), ("same", 0.4)):
        evaluation(tmp_path, small_tree, name, skill)
    found = side_by_side(["weak", "strong", "same"], tmp_path)
    words = {(p.first, p.second): p.word for p in found.pairs if p.benchmark == "sums"}
    assert words == {("weak", "strong"): "better", ("weak", "same"): "not shown", ("strong", "same"): "worse"}
    assert found.benchmarks == ("sums", "choices") and found.validation == ("check",)
    assert {p.benchmark for p in found.pairs} == {"sums", "choices"} and all(
        p.p >= p.found.p for p in found.pairs
    )
    paths, _ = write_side_by_side(found, tmp_path)
    text = paths.markdown.read_text()
    assert "nan" not in text and "null" not in text
    assert "strong against weak\\: better on sums" in text and "not shown better on choices" in text
    assert "check" not in text.split("## Validation")[0] and "check" in text.split("## Validation")[1]
    rows = list(csv.DictReader(paths.csv.read_text().splitlines()))
    assert {(r["benchmark"], r["role"]) for r in rows} == {
        ("sums", "headline"),
        ("choices", "headline"),
        ("check", "validation"),
    }
    assert len(list(csv.DictReader((paths.csv.parent / "pairs.csv").read_text().splitlines()))) == len(
        found.pairs
    )


def test_a_round_of_a_run_is_a_model_and_the_best_on_validation_can_be_asked_for(tmp_path, small_tree):
    small_tree |= {
        "name": "run",
        "stages": [*small_tree["stages"], "score"],
        "rounds": 3,
        "score": SCORE | {"validation": ["check"]},
    }
    run = Run.create(tmp_path / "runs" / "run", run_config(small_tree), "x")
    for round, skill in enumerate((0.3, 0.7, 0.5)):
        do_score(run, round, skill)
    found = side_by_side(["run:0", "run:best", "run"], tmp_path)
    assert [(m.name, m.chosen) for m in found.trials] == [
        ("run, round 0", 0),
        ("run, round 1", 1),
        ("run, round 2", 2),
    ]
    assert found.name == "run-0+run-1+run-2"
    with pytest.raises(RunError, match="no scored round '3'; there are 0, 1, 2"):
        side_by_side(["run:3", "run"], tmp_path)
    with pytest.raises(ValueError, match="named twice"):
        side_by_side(["run:2", "run"], tmp_path)


def test_what_was_asked_differently_is_said(tmp_path, small_tree):
    evaluation(tmp_path, small_tree, "a", 0.5)
    evaluation(tmp_path, small_tree, "b", 0.5, max_tokens=32)
    found = side_by_side(["a", "b"], tmp_path)
    assert found.asked_differently == {"score.max_tokens": ("64", "32")}
    assert "Asked differently" in write_side_by_side(found, tmp_path)[0].markdown.read_text()


def test_problems_of_one_name_with_other_golds_are_not_paired(tmp_path, small_tree):
    evaluation(tmp_path, small_tree, "a", 0.5)
    evaluation(tmp_path, small_tree, "b", 0.5, gold="2")
    found = side_by_side(["a", "b"], tmp_path)
    assert found.pairs == () and "150 of 150 problems have another gold answer" in found.unpaired[0]
    assert "Not compared" in write_side_by_side(found, tmp_path)[0].markdown.read_text()


def test_many_models_are_each_compared_with_the_first_and_get_a_short_name(tmp_path, small_tree):
    names = [f"model-with-a-long-name-{i}" for i in range(MAX_ALL_PAIRS + 1)]
    for name in names:
        evaluation(tmp_path, small_tree, name, 0.5)
    found = side_by_side(names, tmp_path)
    assert {p.first for p in found.pairs} == {names[0]} and len(found.name) <= 80


def test_a_run_without_a_score_is_refused_with_its_remedy(tmp_path, small_tree):
    Run.create(
        tmp_path / "runs" / "new", run_config(small_tree | {"name": "new"}), "x"
    )
    with pytest.raises(RunError, match="jobs.status new"):
        side_by_side(["new", "new:1"], tmp_path)


def test_the_verb_takes_several_runs_and_answers_in_json(tmp_path, small_tree):
    for name in ("a", "b"):
        evaluation(tmp_path, small_tree, name, 0.5)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.report", "a", "b", "--data", str(tmp_path), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (
        answer["models"] == ["a", "b"]
        and Path(answer["html"]).is_file()
        and "not shown better on sums" in " ".join(answer["headline"].split())
    )
