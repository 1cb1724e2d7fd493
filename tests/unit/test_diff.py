"""How two runs differ: keys, code, data, scores."""

import copy

import pytest
from report_run import SCORE, do_score, grades, make_run, publish

from evaluation.scores import paired
from jobs.diff import body
from serl.records import to_jsonl
from serl.run.rundir import Run
from tests.conftest import run_config


@pytest.fixture
def pair(tmp_path, small_tree):
    first = make_run(tmp_path, copy.deepcopy(small_tree))
    tree = copy.deepcopy(small_tree) | {"name": "other", "seed": 7}
    tree["respond"] |= {"samples": 8, "anchors": 10}
    tree["train"]["objective"] = {"kind": "grpo", "kl": 0.0}
    tree |= {"stages": [*tree["stages"], "score"], "score": SCORE, "rounds": 3}
    return first, Run.create(
        tmp_path / "runs" / "other", run_config(tree), "4567def"
    )


def ask(pair, *argv: str) -> dict:
    return dict(body([pair[0].root.name, pair[1].root.name, *argv, "--data", str(pair[0].data_root)]).fields)


def test_only_keys_with_other_values_are_told_and_names_are_no_difference(pair):
    told = {row["key"]: (row["first"], row["second"]) for row in ask(pair)["configuration"]}
    assert told == {
        "seed": (1, 7),
        "phases.self_play.train.objective.kind": ("reinforce_pp", "grpo"),
        "phases.self_play.train.objective.kl": (1e-3, 0.0),
    }


def test_code_is_compared_file_by_file(pair):
    for run, text in zip(pair, ("1", "2")):
        for name, content in (("serl/a.py", text), ("serl/same.py", "s"), ("jobs/__pycache__/x.pyc", text)):
            path = run.root / "code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    (pair[1].root / "code/jobs/new.py").write_text("n")
    assert ask(pair)["code"] == {
        "first": "0123abc",
        "second": "4567def",
        "files": ["jobs/new.py", "serl/a.py"],
    }


def test_the_first_stage_with_other_results_is_named(pair):
    for run in pair:
        do_score(run, 0, num=5)
        for i in range(2):
            publish(run, 1, "propose", i, b"same\n", {})
    assert ask(pair)["data_differs_from"] is None
    for run in pair:
        publish(run, 1, "curate", 0, run.root.name.encode(), {})
    assert ask(pair)["data_differs_from"] == "r001-curate"


def test_scores_are_paired_by_problem_over_those_that_both_were_asked(pair):
    mine, theirs = grades("sums", 60, 0.4, 0), grades("sums", 50, 0.8, 1)
    for run, rows in zip(pair, (mine, theirs)):
        publish(run, 0, "score", 0, to_jsonl(rows), {})
        publish(run, 0, "score", 1, b"", {})
    told = ask(pair)
    (row,) = told["scores"]
    right = [
        [g.verdict == "correct" for g in rows if g.mode == "greedy" and int(g.id) < 50]
        for rows in (mine, theirs)
    ]
    order = sorted(range(50), key=str)
    expected = paired([float(right[0][i]) for i in order], [float(right[1][i]) for i in order])
    assert told["rounds"] == [0, 0] and row["n"] == 50 and row["verdict"] == "better"
    assert (row["difference"], row["p"], row["p_mcnemar"]) == (
        expected.difference,
        expected.p,
        expected.p_mcnemar,
    )


def test_a_round_that_is_not_scored_is_one_sentence(pair):
    assert ask(pair)["scores"] == []
    with pytest.raises(ValueError, match="made-up scores no round 9"):
        ask(pair, "--round", "9")
    with pytest.raises(ValueError, match="not done"):
        ask(pair, "--round", "1")
