"""What-if, on measurements of a made-up world: its tables agree with what can be reasoned out, and a sweep's trials share and take turns."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_up_world import SAVE_S, STEP_TOKEN_S, MadeUpWorld
from test_forecast import RANKS, configuration

from jobs import whatif
from jobs.costs.calibration import learn
from jobs.costs.alternatives import chain_of
from jobs.costs.tasks import daly_interval_s
from jobs.plan.chain import plan
from jobs.plan.cluster import load_cluster
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
    """A data root with measurements, a cluster file, a run file and a sweep file."""
    folder = tmp_path_factory.mktemp("site")
    config = configuration(json.loads(json.dumps(SMALL)), "first", rounds=2)
    MadeUpWorld(1).play(folder / "runs/first", config, RANKS)
    learn(Run.open(folder / "runs/first"), "slurm-low-gpu2")
    files = {
        "cluster": SLURM,
        "run": config.model_dump(mode="json") | {"name": "next"},
        "sweep": {
            "name": "s",
            "base": "run.yaml",
            "space": {"kind": "grid", "over": {"train.optimizer.lr": [1e-5, 1e-4, 1e-3]}},
            "cap": {"kind": "lanes", "lanes": 2},
        },
    }
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def asked(site: Path, what: str, *options: str) -> dict:
    return whatif.body(
        [
            str(site / f"{what}.yaml"),
            "--data",
            str(site),
            "--cluster",
            str(site / "cluster.yaml"),
            "--histories",
            "30",
            *options,
        ]
    ).fields


def test_more_nodes_are_never_later_and_all_combinations_are_told(site, capsys):
    found = asked(site, "run", "--nodes", "2,4,8", "--array-limit", "1,8")["worlds"]
    assert [(w["nodes"], w["array_limit"]) for w in found] == [(2, 1), (2, 8), (4, 1), (4, 8), (8, 1), (8, 8)]
    by = {(w["nodes"], w["array_limit"]): w["median_s"] for w in found}
    assert by[2, 8] >= by[4, 8] >= by[8, 8] and by[8, 1] > by[8, 8]
    assert all(w["gpu_hours"] > 0 and w["lost_s"] == 0 for w in found)
    assert "done after" in capsys.readouterr().out


def test_preemption_costs_time_and_says_what_of_it_was_lost(site):
    calm, rough = (
        asked(site, "run", "--nodes", "4", "--preempt-per-hour", rate)["worlds"][0] for rate in ("0", "6")
    )
    assert rough["median_s"] > calm["median_s"] and rough["preemptions"] > 0
    assert rough["used_s"] - calm["used_s"] == pytest.approx(rough["lost_s"] + rough["repeated_s"], rel=0.25)


def test_preemption_is_by_default_as_the_runs_there_have_seen_it(site, tmp_path, capsys):
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    assert asked(tmp_path, "run")["preempt_per_hour"] == 0.0, "no run was on Slurm"
    seen = [{"run": f"r{n}", "taken": 6, "node_s": 3600.0, "away_s": 50.0} for n in range(5)]
    (tmp_path / "calibration/slurm-low-gpu2.json").write_text(json.dumps(seen))
    found = asked(tmp_path, "run")
    assert found["preempt_per_hour"] == pytest.approx(6.0, rel=0.02) and found["worlds"][0]["preemptions"] > 0
    assert "30 times in 5.0 node-hours" in capsys.readouterr().out
    assert asked(tmp_path, "run", "--preempt-per-hour", "0")["worlds"][0]["preemptions"] == 0.0


def test_more_shards_are_faster_and_waste_more_start_ups(site):
    lines = [s for s in asked(site, "run", "--nodes", "8")["shards"] if s["stage"] == "respond"]
    assert [s["shards"] for s in lines] == [1, 2, 4, 8] and [s["now"] for s in lines].count(True) == 1
    assert [s["seconds"] for s in lines] == sorted((s["seconds"] for s in lines), reverse=True)
    assert [s["wasted_s"] for s in lines] == sorted(s["wasted_s"] for s in lines)


def test_the_cheapest_checkpoint_interval_is_near_dalys(site):
    lines = asked(site, "run", "--preempt-per-hour", "10")["checkpoints"]
    best = min(lines, key=lambda c: c["wasted_s"])
    assert best["minutes"] * 60 == pytest.approx(daly_interval_s(SAVE_S, 20.0), rel=0.3), (
        "two nodes are taken away twice as often as one"
    )
    assert STEP_TOKEN_S > 0 and not best["now"]


def test_smaller_parts_lose_less_where_much_is_preempted(site):
    lines = [p for p in asked(site, "run", "--preempt-per-hour", "30")["parts"] if p["stage"] == "respond"]
    assert [p["part"] for p in lines] == [4, 8, 16, 32, 64]
    assert min(lines, key=lambda p: p["wasted_s"])["part"] < 64
    assert [p["wasted_s"] for p in calm_parts(site)][-1] == min(p["wasted_s"] for p in calm_parts(site)), (
        "else larger batches are better"
    )


def calm_parts(site: Path) -> list[dict]:
    return [p for p in asked(site, "run")["parts"] if p["stage"] == "respond"]


def test_a_sweep_plays_shared_stages_once_and_its_lanes_one_trial_after_another(site):
    one, three = (asked(site, what)["worlds"][0] for what in ("run", "sweep"))
    config = configuration(json.loads(json.dumps(SMALL)), "x", rounds=2)
    shared = 1 + 3  # the base model's score, and the first round's questions and answers
    assert len(plan(config, lambda s: False)) == 11
    chain = chain_of(site / "sweep.yaml", (), load_cluster(str(site / "cluster.yaml")), site)
    assert len(chain.loads) == shared + 3 * (11 - shared)
    assert 2 * one["used_s"] < three["used_s"] < 3 * one["used_s"]
    assert three["median_s"] > 1.5 * one["median_s"], "three trials in two lanes"


def test_what_was_never_measured_is_refused_with_the_remedy(site, tmp_path):
    with pytest.raises(ValueError, match="never measured with base on slurm-low-gpu2.*jobs.report RUN"):
        whatif.body(
            [str(site / "run.yaml"), "--data", str(tmp_path), "--cluster", str(site / "cluster.yaml")]
        )


def test_a_training_that_does_not_fit_is_one_sentence(site):
    with pytest.raises(ValueError, match="r001-train: one task needs 2 slots, and there are 1"):
        asked(site, "run", "--nodes", "1")


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
        "--histories",
        "20",
    ]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) >= {"plan", "worlds", "shards", "parts", "checkpoints"}
    with pytest.raises(SystemExit):
        asked(site, "run", "--nodes", "0")
    assert "at least one" in capsys.readouterr().err
