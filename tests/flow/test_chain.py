"""The whole chain with the real vLLM and the real DeepSpeed on two ranks: undisturbed, and under kills of every kind, with one result."""

import json
import os
import signal
import subprocess
import sys

import pytest
from chain import TINY, event_seen, kill, left_behind, manifests, open_run, run_verb, tasks_of, verb, wait_for

from jobs.costs.measured import rows
from jobs.plan.chain import bounds_of, plan
from jobs.plan.preflight import num_parameters
from serl.stages.kind import World

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def undisturbed(data):
    code, said = run_verb("launch", str(TINY), "name=calm", data=data)
    assert code == 0, said
    return open_run(data, "calm")


def test_a_launch_leaves_a_whole_run_and_its_report(undisturbed):
    found = manifests(undisturbed)
    assert {key.split("/")[1] for key in found} == {
        "corpus",
        "propose",
        "curate",
        "respond",
        "train",
        "score",
    }
    for name in ("report.html", "report.md", "report.csv"):
        assert (undisturbed.root / name).stat().st_size > 500
    assert left_behind(undisturbed) == []
    assert found["1/train/0"].counts["ranks"] == min(2, len(os.sched_getaffinity(0)))


def test_no_stage_leaves_more_than_the_plan_allows(undisturbed):
    config, parameters = undisturbed.config, num_parameters(undisturbed.config, undisturbed.data_root)
    sampled = {(r.round, r.stage): r.yields.get("tokens", 0) for r in rows(undisturbed)}
    for job in plan(config, lambda shard: False):
        most, found = (
            bounds_of(config, job, World(num_parameters=parameters)),
            [undisturbed.manifest(s) for s in job.missing],
        )
        tokens = sampled[job.round, job.stage] if job.stage in ("propose", "respond", "score") else 0
        assert tokens <= most.tokens, job.name
        assert sum(len(m.files) + 1 for m in found) <= most.files, job.name
        assert sum(f.bytes for m in found for f in m.files) <= most.bytes, job.name


def test_the_trainer_and_vllm_agree_on_log_probabilities(undisturbed):
    counts = manifests(undisturbed)["1/train/0"].counts
    assert abs(counts["mismatch_kl"]) < 1e-6 and counts["mismatch_max"] < 1e-3


def test_stored_responses_are_graded_again_without_a_model(undisturbed):
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.grade", str(undisturbed.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 of " in done.stdout.splitlines()[-1]


def test_kills_of_launcher_stage_and_rank_change_nothing(undisturbed, data):
    """kill -9 of the launcher, of a generating stage and of a training rank, then Ctrl-C: the resumed run equals the calm one byte for byte."""
    launcher = verb("launch", str(TINY), "name=chaos", data=data)
    root = data / "runs" / "chaos"
    wait_for(lambda: event_seen(root, "propose", 1, "progress"), "a part of propose")
    kill(launcher.process.pid)
    launcher.wait()

    launcher = verb("resume", "chaos", data=data)
    wait_for(lambda: event_seen(root, "respond", 1, "progress"), "a part of respond")
    kill(tasks_of(launcher.process.pid, "respond")[0])
    wait_for(lambda: event_seen(root, "train", 1, "step"), "a step of training")
    kill(tasks_of(launcher.process.pid, "train")[-1])
    wait_for(lambda: event_seen(root, "propose", 2, "start"), "round 2")
    os.killpg(launcher.process.pid, signal.SIGINT)
    assert launcher.wait() == 130, launcher.said()
    run = open_run(data, "chaos")
    assert left_behind(run) == []

    code, said = run_verb("resume", "chaos", data=data)
    assert code == 0, said
    calm, chaos = manifests(undisturbed), manifests(run)
    assert {k: m.digest for k, m in calm.items()} == {k: m.digest for k, m in chaos.items()}
    assert left_behind(run) == []


def test_status_says_what_is_done(undisturbed, data):
    code, said = run_verb("status", "calm", "--json", data=data)
    facts = json.loads(said)
    assert code == 0 and facts["state"] == "done"
    assert all(stage["fraction"] == 1.0 for stage in facts["stages"])


def test_a_done_shard_is_not_done_again(undisturbed, data):
    before = manifests(undisturbed)["1/propose/0"]
    code, said = run_verb("shard", "calm", "1", "propose", "0", data=data)
    assert code == 0 and "done already" in said
    assert manifests(undisturbed)["1/propose/0"] == before


def test_a_taken_name_is_refused_before_anything_runs(undisturbed, data):
    code, said = run_verb("launch", str(TINY), "name=calm", data=data)
    assert code == 2 and "jobs.resume calm" in said
