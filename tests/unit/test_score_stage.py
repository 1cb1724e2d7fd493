"""score: what its shards were asked is part of what they are."""

import json

import pytest

from serl.config.read import revive
from serl.engines import generator
from serl.records import to_jsonl
from serl.run.events import Events
from serl.run.rundir import Run, RunError
from serl.run.signals import Stop
from serl.stages import exams
from serl.stages.work import Work, execute
from tests.conftest import run_config
from tests.flow.deterministic import Engine

SCORE = {"shards": 2, "benchmarks": ["arithmetic"], "max_tokens": 60}


@pytest.fixture
def scoring(tmp_path, small_tree, monkeypatch) -> Run:
    monkeypatch.setattr(generator, "Generator", Engine)
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "models" / "base" / "config.json").write_text("{}")
    (tmp_path / "benchmarks").mkdir()
    tree = {key: small_tree[key] for key in ("name", "base", "prompts", "engine")} | {
        "rounds": 0,
        "stages": ["score"],
        "score": SCORE,
    }
    return Run.create(tmp_path / "runs" / "small", run_config(tree), "test")


def score(run: Run, index: int, *, offset: int = 0) -> None:
    """Score a shard of 8 problems, whose numbers begin at `offset`."""
    rows = [
        {
            "id": str(i),
            "question": f"What is {offset + i} plus 1?",
            "answer": str(offset + i + 1),
            "kind": "sum",
        }
        for i in range(8)
    ]
    (run.data_root / "benchmarks" / "arithmetic.jsonl").write_bytes(to_jsonl(rows))
    shard = run.shards(0, "score")[index]
    events = Events(run.root / "events", f"score-{index}")
    execute(
        Work(run=run, shard=shard, attempt_id=f"a{index}", device="cpu", cores=1, events=events, stop=Stop())
    )


def test_shards_that_were_asked_different_problems_are_no_score(scoring):
    """A benchmark's file that was replaced between two shards, or two attempts, used to go unnoticed."""
    score(scoring, 0)
    score(scoring, 1, offset=100)
    with pytest.raises(RunError, match="computed from different inputs.*problems"):
        scoring.complete(0, "score")


def test_shards_that_were_asked_the_same_are_one(scoring):
    score(scoring, 0)
    score(scoring, 1)
    assert len(scoring.complete(0, "score")) == 2


def test_a_benchmark_of_ones_own_stands_in_the_run_file(scoring, tmp_path, small_tree):
    own = {"capitals": {"file": "capitals.csv", "answers": {"kind": "text"}, "fields": {"question": "country"}}}
    tree = {key: small_tree[key] for key in ("name", "base", "prompts", "engine")} | {
        "rounds": 0,
        "stages": ["score"],
        "score": SCORE | {"shards": 1, "benchmarks": ["capitals"], "own": own},
    }
    (tmp_path / "benchmarks/capitals.csv").write_text("country,answer\nFrance,Paris\nPeru,Lima\n")
    config = run_config(tree)
    assert revive(json.loads(config.model_dump_json())) == config
    run = Run.create(tmp_path / "runs" / "own", config, "test")
    score(run, 0)
    grades = exams.round_grades(run, 0)
    assert [(g.benchmark, g.kind, g.gold) for g in grades] == [("capitals", "text", "Paris"), ("capitals", "text", "Lima")]


def test_a_shipped_name_is_no_ones_own(small_tree):
    own = {"gsm8k": {"file": "x.csv", "kind": "math"}}
    with pytest.raises(ValueError, match="gsm8k: the name of a shipped benchmark"):
        run_config(small_tree | {"stages": [*small_tree["stages"], "score"], "score": SCORE | {"own": own}})
