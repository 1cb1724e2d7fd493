"""A run whose votes went wrong is halted by the training job itself, the real one on two ranks, before it loads a model; a person lets it go on."""

import json

import pytest
from chain import left_behind, run_verb

from jobs import resume
from jobs.runs import freeze_code
from serl.checkup import accepted, halted
from serl.rundir import RunError
from tests.conftest import SMALL
from tests.unit.report_run import do_curate, do_propose, do_respond, do_score, do_train, group, make_run, publish

pytestmark = pytest.mark.timeout(600)

BASE = {
    "kind": "scratch",
    "architecture": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 64},
    "corpus": {"documents": 10},
    "train": {"batch_tokens": 512, "optimizer": {"lr": 1e-3}},
}
SCORE = {"shards": 2, "benchmarks": ["arithmetic"], "max_tokens": 64}


def test_a_collapse_halts_the_chain_with_its_reason_until_a_person_accepts_it(tmp_path, monkeypatch):
    tree = json.loads(json.dumps(SMALL)) | {"seeds": {"kind": "corpus"}}
    run = make_run(tmp_path, tree, base=BASE, score=SCORE, rounds=3)
    freeze_code(run.root / "code")
    publish(run, 0, "corpus", 0, b"{}\n", {})
    do_train(run, 0)
    do_score(run, 0)
    for round, num_right in ((1, 30), (2, 5)):
        do_propose(run, round)
        do_curate(run, round)
        anchors = [group(f"s{i}", [0 if i < num_right else 1] * 6 + [2, None], role="anchor") for i in range(40)]
        do_respond(run, round, [group(f"g{i}", [i % 5] * 4 + [7, 8, 9, None]) for i in range(20)] + anchors)
    do_train(run, 1)
    do_score(run, 1)

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
