"""A run whose votes went wrong is halted by the training job itself, the real one on two ranks, before it loads a model; a person lets it go on."""

import json
from pathlib import Path

import pytest
import yaml
from chain import left_behind, run_verb
from lab import CLUSTER, running_lab, wait_until

from jobs import resume
from jobs.chain.cancel import cancel, live
from jobs.chain.slurm import submit_missing
from jobs.plan.cluster import load_cluster
from jobs.runs.code import freeze_code
from jobs.runs.failures import failures
from jobs.runs.queue import Journal, at_work
from serl.run.rundir import Run, RunError
from serl.safety.checkup import accepted, halted
from tests.conftest import SMALL
from tests.unit.report_run import (
    do_curate,
    do_propose,
    do_respond,
    do_score,
    do_train,
    group,
    make_run,
    publish,
)

pytestmark = pytest.mark.timeout(600)

BASE = {
    "kind": "scratch",
    "architecture": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 64},
    "corpus": {"documents": 10},
    "train": {"batch_tokens": 512, "optimizer": {"lr": 1e-3}},
}
SCORE = {"shards": 2, "benchmarks": ["arithmetic"], "max_tokens": 64}


def collapsed(folder: Path, **safety: dict) -> Run:
    """A run of three rounds whose second one's votes on the anchors are wrong, and which has not been trained on them yet."""
    tree = json.loads(json.dumps(SMALL)) | {"seeds": {"kind": "corpus"}}
    run = make_run(folder, tree, base=BASE, score=SCORE, rounds=3, safety=safety)
    freeze_code(run.root / "code")
    publish(run, 0, "corpus", 0, b"{}\n", {})
    do_train(run, 0)
    do_score(run, 0)
    for round, num_right in ((1, 30), (2, 5)):
        do_propose(run, round)
        do_curate(run, round)
        anchors = [
            group(f"s{i}", [0 if i < num_right else 1] * 6 + [2, None], role="anchor") for i in range(40)
        ]
        do_respond(run, round, [group(f"g{i}", [i % 5] * 4 + [7, 8, 9, None]) for i in range(20)] + anchors)
    do_train(run, 1)
    do_score(run, 1)
    return run


def test_a_collapse_halts_the_chain_with_its_reason_until_a_person_accepts_it(tmp_path, monkeypatch):
    run = collapsed(tmp_path)
    code, said = run_verb("resume", "made-up", data=tmp_path)
    assert code == 1 and "stopped by safety before round 2 trains" in said and "--accept 2" in said, said
    assert "Traceback" not in said and left_behind(run) == []
    assert not run.done(run.shards(2, "train")[0])
    assert "stopped by safety before round 2 trains" in (run.root / "report.md").read_text().replace("\\", "")

    code, said = run_verb("status", "made-up", "--json", data=tmp_path)
    (found,) = json.loads(said)["safety"]
    assert (found["round"], found["verdict"], found["alarms"][0]["rule"]) == (2, "stop", "accuracy")

    monkeypatch.setattr(resume, "drive", lambda run, cluster: 0)
    with pytest.raises(RunError, match="round 2 waits for that"):
        resume.body(["made-up", "--data", str(tmp_path), "--accept", "1"])
    assert resume.body(["made-up", "--data", str(tmp_path), "--accept", "2"]) == 0
    assert accepted(run, 2) and halted(run) is None


@pytest.fixture
def lab(tmp_path):
    with running_lab(tmp_path / "lab") as lab:
        yield lab


def test_on_slurm_stop_ends_the_chain_and_hold_keeps_the_job_with_its_reason(lab, tmp_path):
    """Both on one lab; neither is tried again by itself."""
    file = tmp_path / "cluster.yaml"
    setup = ["export DS_ACCELERATOR=cpu OMP_NUM_THREADS=1"]
    stopped = collapsed(tmp_path / "a")
    held = collapsed(tmp_path / "b", accuracy={"action": "hold"}, conviction={"action": "ignore"})
    for run in (stopped, held):
        file.write_text(
            yaml.safe_dump(
                CLUSTER
                | {
                    "data": str(run.data_root),
                    "setup": setup,
                    "stages": {"train": {"nodes": 1, "tasks_per_node": 2}},
                }
            )
        )
        submit_missing(run, load_cluster(str(file)))
    wait_until(lambda: not live(stopped), "the run that stops to leave the queue")
    wait_until(lambda: any(q.held for q in live(held)), "the run that holds to hold its job")

    told = {f["shard"]: f["reason"] for f in failures(stopped)}
    assert told["round 2 train 1/1"].startswith("stopped by safety before round 2 trains"), told
    assert told["round 3 propose 1/2"].startswith("blocked"), told
    (job,) = [q for q in live(held) if q.held]
    assert at_work(Journal(held.root).submissions(), [job]) == {("r002-train", 0): job}
    (reason,) = [f["reason"] for f in failures(held)]
    assert reason.startswith("held by safety before round 2 trains"), reason
    assert len(live(held)) > 1, "those behind it keep their places"
    code, said = run_verb("status", "made-up", data=held.data_root)
    assert code == 0 and "held by safety before round 2 trains" in " ".join(said.split()), said
    cancel(held)
    wait_until(lambda: not live(held), "the queue to be empty")
