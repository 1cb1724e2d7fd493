"""What-if, on measurements of a made-up world: its table agrees with what can be reasoned out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_up_world import SAVE_S, STEP_TOKEN_S, MadeUpWorld, length
from test_forecast import RANKS, configuration

from jobs import whatif
from jobs.costs.measured import learn
from jobs.costs.simulate import daly_interval_s
from serl.run.rundir import Run
from tests.conftest import ROOT, SMALL

SLURM = {
    "kind": "slurm",
    "data": "data",
    "partition": "low",
    "gpus_per_node": 2,
    "array_limit": 8,
    "stages": {"train": {"nodes": 2}},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with measurements, a cluster file and a run file."""
    folder = tmp_path_factory.mktemp("site")
    config = configuration(json.loads(json.dumps(SMALL)), "first", rounds=2)
    MadeUpWorld(1).play(folder / "runs/first", config, RANKS)
    learn(Run.open(folder / "runs/first"), "slurm-low-gpu2")
    files = {"cluster": SLURM, "run": config.model_dump(mode="json") | {"name": "next"}}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def asked(site: Path, *options: str) -> list[dict]:
    where = ["--data", str(site), "--cluster", str(site / "cluster.yaml")]
    return whatif.body([str(site / "run.yaml"), *where, *options]).fields["lines"]


def changed(lines: list[dict], key: str) -> dict[int, dict]:
    """The lines with other values of a key, by value; the present one is the first line of all."""
    pairs = (line["change"].partition("=") for line in lines)
    return {int(value): line for (name, _, value), line in zip(pairs, lines) if name == key}


def test_more_nodes_are_never_later_and_all_combinations_are_told(site, capsys):
    lines = asked(site, "--nodes", "2,4,8", "--array-limit", "1,8", "--preempt-per-hour", "0,6")
    found = [line for line in lines if not line["change"]]
    names = ("nodes", "array_limit", "preempt_per_hour")
    assert [tuple(line[n] for n in names) for line in found] == [
        (n, a, r) for n in (2, 4, 8) for a in (1, 8) for r in (0, 6)
    ]
    by = {tuple(line[n] for n in names): line for line in found}
    median = {key: line["seconds"]["median"] for key, line in by.items()}
    assert median[2, 8, 0] >= median[4, 8, 0] >= median[8, 8, 0] and median[8, 1, 0] > median[8, 8, 0]
    assert median[4, 8, 6] > median[4, 8, 0]
    calm, rough = by[4, 8, 0], by[4, 8, 6]
    assert rough["used_s"] - calm["used_s"] == pytest.approx(rough["wasted_s"] - calm["wasted_s"])
    assert rough["used_s"] > calm["used_s"] > calm["wasted_s"] > 0 and calm["gpu_hours"] > 0
    assert "wasted, h" in capsys.readouterr().out


def test_preemption_is_by_default_as_the_runs_there_have_seen_it(site, tmp_path):
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    assert asked(tmp_path)[0]["preempt_per_hour"] == 0.0, "no run was on Slurm"
    (path,) = (tmp_path / "calibration").glob("*/*.json")
    content = json.loads(path.read_text())
    content["taught"][0] |= {"taken": 30, "node_s": 5 * 3600.0, "away_s": 50.0}
    path.write_text(json.dumps(content))
    assert asked(tmp_path)[0]["preempt_per_hour"] == 6.0
    assert asked(tmp_path, "--preempt-per-hour", "0")[0]["preempt_per_hour"] == 0.0


def test_more_shards_are_faster_and_waste_more_start_ups(site):
    lines = asked(site, "--nodes", "8")
    found = changed(lines, "respond.shards") | {2: lines[0]}
    assert sorted(found) == [1, 2, 4, 8]
    medians, wasted = (
        [of(found[n]) for n in sorted(found)]
        for of in (lambda line: line["seconds"]["median"], lambda line: line["wasted_s"])
    )
    assert medians == sorted(medians, reverse=True) and wasted == sorted(wasted)
    assert found[1]["cheapest"] and not found[8]["cheapest"]


def test_the_cheapest_checkpoint_interval_is_near_dalys(site):
    lines = asked(site, "--preempt-per-hour", "10")
    found = changed(lines, "train.checkpoint_every")
    best = min(found, key=lambda every: found[every]["used_s"])
    assert found[best]["cheapest"] and found[best]["used_s"] < lines[0]["used_s"]
    config = configuration(json.loads(json.dumps(SMALL)), "x", rounds=2)
    step_s = STEP_TOKEN_S * config.phases.self_play.train.batch_samples * length("respond", 2) / RANKS
    assert best * step_s == pytest.approx(daly_interval_s(SAVE_S, 20.0), rel=0.3), (
        "two nodes are taken away twice as often as one"
    )


def test_smaller_parts_lose_less_where_much_is_preempted(site):
    rough, calm = (
        changed(asked(site, *options), "respond.part_prompts")
        for options in (["--preempt-per-hour", "30"], [])
    )
    assert sorted(rough) == [4, 8, 32, 64]
    assert min(rough, key=lambda part: rough[part]["used_s"]) < 64
    assert calm[64]["used_s"] == min(line["used_s"] for line in calm.values()), (
        "else larger batches are better"
    )


def test_what_was_never_measured_is_refused_with_the_remedy(site, tmp_path):
    with pytest.raises(ValueError, match="of base was never measured on slurm-low-gpu2.*the report of the first run"):
        whatif.body(
            [str(site / "run.yaml"), "--data", str(tmp_path), "--cluster", str(site / "cluster.yaml")]
        )


def test_a_training_that_does_not_fit_is_one_sentence(site):
    with pytest.raises(ValueError, match="r001-train: one task needs 2 slots, and there are 1"):
        asked(site, "--nodes", "1")
    first, second, *_ = asked(site, "--nodes", "1,4")
    assert "needs 2 slots" in first["refused"] and not second["refused"]


def test_the_verb_answers_in_json_and_knows_a_wrong_number(site, capsys):
    command = [
        sys.executable,
        "-m",
        "jobs.whatif",
        str(site / "run.yaml"),
        "--data",
        str(site),
        "--cluster",
        str(site / "cluster.yaml"),
    ]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["plan"] == "next" and set(told["lines"][0]) >= {"nodes", "change", "seconds", "used_s"}
    with pytest.raises(SystemExit):
        asked(site, "--nodes", "0")
    assert "at least one" in capsys.readouterr().err
