"""A round that several stages score, say on two engines: each is a series of its own wherever scores are told."""

import copy
import csv
from pathlib import Path

import pytest
from report_run import grades, publish

from jobs import diff
from jobs.reporting import figures
from jobs.reporting.findings import gather
from jobs.reporting.side_by_side import side_by_side
from jobs.reporting.sweep_findings import gather_sweep
from jobs.reporting.written import write_report, write_side_by_side
from jobs.sweeps.early import answers
from jobs.sweeps.schema import SweepConfig
from jobs.sweeps.trials import Sweep, Trial
from serl.records import to_jsonl
from serl.run.rundir import Run
from serl.stages.exams import asked, scored_rounds
from tests.conftest import SMALL, run_config

SCORE = {"shards": 1, "benchmarks": ["sums"], "validation": ["check"], "max_tokens": 64}
SKILLS = {"score": (0.2, 0.5, 0.6), "exam": (0.2, 0.9, 0.3)}  # by round


def make(data: Path, **phases: dict[str, dict]) -> Run:
    """A run of these phases, each with its examinations beside the usual stages."""
    tree = copy.deepcopy(SMALL)
    usual = {k: tree.pop(k) for k in tree.pop("stages")}
    del tree["rounds"]
    made = {name: usual | exams | {"rounds": 2, "stages": [*usual, *exams]} for name, exams in phases.items()}
    return Run.create(data / "runs" / "two", run_config(tree | {"name": "two", "phases": made}), "x")


def both(data: Path) -> Run:
    exam = SCORE | {"kind": "score", "max_tokens": 32, "benchmarks": ["sums", "choices"]}
    return make(data, play={"score": SCORE, "exam": exam})


def examine(run: Run, round: int, stage: str) -> None:
    names = {"score": ("sums", "check"), "exam": ("sums", "choices", "check")}[stage]
    rows = [
        row for name in names for row in grades(name, 60, SKILLS[stage][round], round) if row.mode == "greedy"
    ]
    publish(run, round, stage, 0, to_jsonl(rows), {})


@pytest.fixture
def two(tmp_path) -> Run:
    run = both(tmp_path)
    for round in range(3):
        for stage in SKILLS:
            examine(run, round, stage)
    return run


def test_a_benchmark_that_two_stages_ask_is_two_series(two):
    assert asked(two.config) == (("sums", "exam/sums", "choices"), ("check", "exam/check"))
    found = gather(two)
    assert list(found.rounds[1].scores) == ["sums", "exam/sums", "choices"]
    shares = {name: s.metrics["pass_at_1"].value for name, s in found.rounds[1].scores.items()}
    assert shares["exam/sums"] > shares["sums"]
    words = {p.benchmark: p.word for p in found.rounds[1].comparisons}
    assert words["exam/sums"] == "better", "each with its own base"
    drawn = figures.of_run(found)["scores"]()
    assert [ax.get_title() for ax in drawn.axes] == ["sums", "exam/sums", "choices"]
    rows = list(csv.DictReader(write_report(two)[0].csv.read_text().splitlines()))
    told = {(r["benchmark"], r["round"]) for r in rows if r["metric"] == "pass_at_1"}
    assert told >= {("sums", "2"), ("exam/sums", "2"), ("exam/check", "0")}


def test_the_best_round_is_chosen_by_the_validation_sets_of_all(two, tmp_path):
    """By the first alone it would be round 2."""
    assert gather(two).chosen.round == 1
    found = side_by_side(["two:0", "two:best"], tmp_path)
    assert found.benchmarks == ("sums", "exam/sums", "choices")
    assert {p.benchmark for p in found.pairs} == set(found.benchmarks)
    page = write_side_by_side(found, tmp_path)[0].markdown.read_text()
    assert "exam/sums" in page.split("## Validation")[0]


def test_a_round_counts_as_scored_once_every_examination_is_done(tmp_path):
    run = both(tmp_path)
    examine(run, 0, "score")
    assert scored_rounds(run) == [] and list(gather(run).rounds[0].scores) == ["sums"]
    examine(run, 0, "exam")
    assert scored_rounds(run) == [0]


def test_sweeps_diff_and_early_stop_see_all(two, tmp_path):
    config = {"name": "s", "base": "b.yaml", "space": {"kind": "list", "trials": [{"seed": 1}]}}
    trial = Trial(id="a", run="two", overrides={"seed": 1})
    sweep = Sweep(name="s", config=SweepConfig.model_validate(config, strict=False), trials=(trial,))
    (tmp_path / "sweeps" / "s").mkdir(parents=True)
    found = gather_sweep(sweep, tmp_path)
    assert found.benchmarks == ("sums", "exam/sums", "choices") and found.validation == (
        "check",
        "exam/check",
    )
    assert found.trials[0].chosen == 1
    told = diff.body(["two", "two", "--data", str(tmp_path)]).fields["scores"]
    assert {"sums", "exam/sums", "exam/check"} <= {row["benchmark"] for row in told}
    assert {id.rpartition("/")[0] for id in answers(two, 1)} == {"check", "exam/check"}


def test_stages_that_follow_each_other_in_phases_are_one_series(tmp_path):
    run = make(tmp_path, first={"score": SCORE}, second={"exam": SCORE | {"kind": "score"}})
    assert asked(run.config) == (("sums",), ("check",))
