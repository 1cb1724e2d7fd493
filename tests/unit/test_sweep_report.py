"""The report of a sweep: what it calls best and why, what it refuses to claim, what is not finished, and files that others can read."""

import copy
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from sweep_made import NUM, finish, make_sweep

from evaluation.seeds import over_seeds
from jobs.reporting.sweep_findings import gather_sweep
from jobs.reporting.written import write_sweep_report
from jobs.runs.failures import failure_path
from jobs.sweeps.trials import Sweep, Trial, short_keys
from serl.run.rundir import Run, end_after
from tests.conftest import ROOT, SMALL


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Sweep]:
    """Two seeds of each setting are done; the third of the last failed, that before it was ended early, and one was never made."""
    data = tmp_path_factory.mktemp("data")
    sweep = make_sweep(data, copy.deepcopy(SMALL))
    for trial in sweep.trials:
        run = Run.open(data / "runs" / trial.run)
        if trial.run == "made-rloo0.0001-2":
            path = failure_path(run, run.shards(0, "score")[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps({"shard": "round 0 score 1/1", "reason": "the disk of <b>node7</b> is full"})
            )
        elif trial.run == "made-grpo0.0001-2":
            finish(run, trial, rounds=(0,))
            end_after(run.root, 0, "significantly worse")
        else:
            finish(run, trial)
    unmade = Trial(
        id="later",
        run="made-later",
        overrides={"train.objective": {"kind": "rloo"}, "train.optimizer.lr": 1e-5, "seed": 9},
    )
    return data, Sweep(name=sweep.name, config=sweep.config, trials=(*sweep.trials, unmade))


def rows_of(path: Path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_settings_are_ranked_by_validation_among_those_with_equally_many_seeds(made):
    data, sweep = made
    found = gather_sweep(sweep, data)
    assert [s.label for s in found.settings][:2] == ["objective=grpo, lr=1e-05", "objective=rloo, lr=1e-05"]
    assert [len(s.over) for s in found.settings] == [3, 3, 3, 2]
    assert found.validation == ("check",) and found.benchmarks == ("sums",) and found.ranked_by == ("check",)


def test_a_settings_mean_is_that_of_its_seeds_and_its_interval_is_students(made):
    data, sweep = made
    best = gather_sweep(sweep, data).settings[0]
    values = [t.means[1]["sums"] for t in best.trials]
    assert best.seeds("sums") == over_seeds(values)
    assert best.problems("sums").n == NUM and best.problems("sums").value == pytest.approx(
        best.seeds("sums").value
    )


def test_a_trial_is_reported_with_its_best_round_on_validation(made):
    data, sweep = made
    for t in gather_sweep(sweep, data).trials:
        if t.chosen is not None:
            assert t.means[t.chosen]["check"] == max(means["check"] for means in t.means.values())


def test_a_difference_is_shown_only_after_holms_adjustment_and_only_on_common_seeds(made):
    data, sweep = made
    found = gather_sweep(sweep, data)
    pairs = {(p.first, p.second): p for p in found.pairs}
    assert len(pairs) == 6
    best, last = found.settings[0].label, found.settings[-1].label
    assert [pairs[best, s.label].found.num_seeds for s in found.settings[1:]] == [
        3,
        3,
        2,
    ] and last == "objective=rloo, lr=0.0001"
    assert pairs[best, "objective=grpo, lr=0.0001"].word == "worse"
    assert all(p.p >= p.found.p for p in found.pairs)
    equal = [p for p in found.pairs if "lr=0.0001" in p.first and "lr=0.0001" in p.second]
    assert [p.word for p in equal] == ["not shown"]


def test_what_is_not_finished_is_listed_with_its_reason(made):
    data, sweep = made
    paths, _ = write_sweep_report(sweep, data)
    text = paths[1].read_text()
    assert "10 done, 1 ended early, 1 failed, 1 not begun" in text
    assert "after round 0\\: significantly worse" in text and "is full" in text
    page = paths[0].read_text()
    assert "<b>node7" not in page and "&lt;b&gt;node7" in page and "<script" not in page


def test_the_files_agree_with_each_other(made):
    data, sweep = made
    paths, summary = write_sweep_report(sweep, data)
    by_name = {p.name: p for p in paths}
    trials, settings, pairs = (rows_of(by_name[name]) for name in ("report.csv", "settings.csv", "pairs.csv"))
    assert {r["run"] for r in trials} == {t.run for t in sweep.trials}
    (best,) = [r for r in settings if r["rank"] == "1" and r["benchmark"] == "sums"]
    chosen = [
        float(r["score"])
        for r in trials
        if r["setting"] == best["setting"] and r["benchmark"] == "sums" and r["chosen"] == "1"
    ]
    assert float(best["mean"]) == pytest.approx(sum(chosen) / len(chosen)) and best["role"] == "headline"
    assert len(pairs) == 6
    console = Console(file=io.StringIO(), width=200)
    console.print(summary)
    told = " ".join(console.file.getvalue().split())
    assert f"{float(best['mean']):.3f}" in told and "Best by validation: objective=grpo, lr=1e-05" in told


def test_grades_that_were_read_once_are_not_read_again(made, monkeypatch):
    data, sweep = made
    first = gather_sweep(sweep, data)

    def refuse(run: Run, round: int) -> list:
        raise AssertionError(f"{run.root} round {round} was read a second time")

    monkeypatch.setattr("serl.stages.exams.round_grades", refuse)
    assert [t.means for t in gather_sweep(sweep, data).trials] == [t.means for t in first.trials]


def test_tensorboard_finds_a_session_for_each_trial_with_its_overrides_and_scores(made):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    data, sweep = made
    for _ in range(2):
        write_sweep_report(sweep, data)
    folder = data / "sweeps" / "made" / "tensorboard"
    found = {t.name: t for t in gather_sweep(sweep, data).trials if t.chosen is not None}
    assert {p.name for p in folder.iterdir() if p.is_dir()} == set(found)
    run = "made-grpo1e-05-1"
    board = EventAccumulator(str(folder / run))
    board.Reload()
    start = metadata.parse_session_start_info_plugin_data(
        board.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    )
    assert (
        start.hparams["train.optimizer.lr"].number_value == 1e-5
        and start.hparams["train.objective"].string_value == "grpo"
    )
    assert [e.step for e in board.Scalars("score/sums")] == [0, 1]
    assert board.Scalars("final/sums")[0].value == pytest.approx(found[run].means[1]["sums"])
    root = EventAccumulator(str(folder))
    root.Reload()
    experiment = metadata.parse_experiment_plugin_data(
        root.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    )
    assert {i.name for i in experiment.hparam_infos} == {"train.objective", "train.optimizer.lr", "seed"}


def test_a_sweep_of_which_nothing_is_done_is_reported_all_the_same(tmp_path):
    sweep = make_sweep(tmp_path, copy.deepcopy(SMALL), seeds=(0,))
    paths, _ = write_sweep_report(sweep, tmp_path)
    assert "No setting has a score yet" in paths[1].read_text()


def test_a_damaged_score_is_told_and_hides_no_other_trial(tmp_path):
    sweep = make_sweep(tmp_path, copy.deepcopy(SMALL), seeds=(0,))
    for trial in sweep.trials[:2]:
        finish(Run.open(tmp_path / "runs" / trial.run), trial)
    run = Run.open(tmp_path / "runs" / sweep.trials[0].run)
    manifest = run.manifest(run.shards(1, "score")[0])
    run.path(manifest, manifest.files[0]).write_bytes(b"rotten")
    words = {t.id: (t.word, t.reason) for t in gather_sweep(sweep, tmp_path).trials}
    assert (
        words[sweep.trials[0].id][0] == "damaged"
        and "do not match the manifest" in words[sweep.trials[0].id][1]
    )
    assert words[sweep.trials[1].id][0] == "done"


def test_a_key_is_shortened_as_far_as_it_stays_its_own():
    assert short_keys(["train.optimizer.lr", "base.train.optimizer.lr", "seed"]) == {
        "train.optimizer.lr": "train.optimizer.lr", "base.train.optimizer.lr": "base.train.optimizer.lr", "seed": "seed"
    }  # fmt: skip
    assert short_keys(["train.objective", "respond.reward"]) == {
        "train.objective": "objective",
        "respond.reward": "reward",
    }


def test_the_report_of_a_sweep_loads_nothing_heavy_before_it_draws():
    check = "import sys, jobs.reporting.written; print(*(m for m in ('torch', 'vllm', 'transformers', 'deepspeed', 'matplotlib', 'tensorboard') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_damaged_manifest_of_any_stage_is_told_too(tmp_path):
    sweep = make_sweep(tmp_path, copy.deepcopy(SMALL), seeds=(0,))
    run = Run.open(tmp_path / "runs" / sweep.trials[0].run)
    finish(run, sweep.trials[0])
    (run.stage_dir(1, "curate") / "shard_00000.json").write_text("{")
    (first, *_) = [t for t in gather_sweep(sweep, tmp_path).trials if t.id == sweep.trials[0].id]
    assert first.word == "damaged" and "remove it and resume" in first.reason
