"""A run of the version before, with one flat list of stages: read by every verb, resumed by none."""

import json
import shutil
from pathlib import Path

import pytest

from jobs import diff, gc, logs, report, resume, shard, status
from jobs.browser.site import LISTS, Site
from serl.config.old import modern
from serl.config.read import revive
from serl.run.rundir import Run
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "old_run"


@pytest.fixture
def old(tmp_path: Path) -> Run:
    """Two rounds of propose, curate, respond, train and score, all done; its weights are cut off."""
    return Run.open(shutil.copytree(FIXTURE, tmp_path / "runs" / "old"))


def ask(verb, run: Run, *argv: str):
    return verb.body([*argv, "--data", str(run.data_root)])


def test_a_flat_configuration_is_one_phase_and_keeps_its_digest(old):
    assert old.old and [name for name, _ in old.config.phases.items()] == ["self_play"]
    assert old.config.rounds == 2
    manifests = [m for s in old.config.stages for m in old.complete(s.round, s.name)]
    assert {m.config for m in manifests} == {old.digest}
    assert old.config.stage(1, "train").section.correction.mode == "none", "importance_cap was null"


def test_rules_of_form_in_a_section_of_a_phase_are_the_runs(old):
    frozen = json.loads((FIXTURE / "run.json").read_bytes())["config"]
    in_a_phase = modern({k: v for k, v in frozen.items() if k != "quality"})
    rules = in_a_phase.pop("quality")
    phase = in_a_phase["phases"]["self_play"]
    told = in_a_phase | {"phases": {"self_play": phase | {"propose": phase["propose"] | {"quality": rules}}}}
    assert revive(modern(told)) == old.config


def test_status_logs_and_gc_read_it(old, capsys):
    told = ask(status, old, "old", "--json").fields
    assert told["state"] == "done" and len(told["stages"]) == 13
    assert ask(logs, old, "old") == 0 and ask(logs, old, "old", "train") == 0
    said = capsys.readouterr().out
    assert "r001-respond 1" in said and "* done: seconds" in said
    assert ask(gc, old, "--older-than", "0").fields["skipped"] == []


def test_every_page_of_it_can_be_browsed(old):
    site = Site(old)
    for name in ("", *LISTS):
        for round in site.rounds:
            assert site.page(name, {"round": str(round)}, "nonce")
    assert b"answer 4" in site.page("group", {"round": "1"}, "nonce")
    assert b"verdict" in site.page("response", {"round": "0"}, "nonce")


def test_the_report_is_written(old):
    assert ask(report, old, "old") == 0
    assert "old" in (old.root / "report.html").read_text()


def test_it_differs_from_a_changed_copy_in_what_was_changed(old):
    other = shutil.copytree(old.root, old.root.parent / "other")
    frozen = json.loads((other / "run.json").read_bytes())
    frozen["config"]["seed"] = 3
    (other / "run.json").write_text(json.dumps(frozen))
    for path in other.glob("round_*/*/shard_*.json"):
        path.unlink()
    told = ask(diff, old, "old", "other").fields
    assert told["configuration"] == [{"key": "seed", "first": 0, "second": 3}]
    assert ask(diff, old, "old", "old").fields["scores"]


def test_one_that_is_not_finished_is_left_to_its_own_code(old):
    """Resumed by other code, its later rounds would not be what its earlier ones were."""
    assert ask(shard, old, "old", "2", "score").fields["done_before"]
    (old.root / "round_002" / "score" / "shard_00000.json").unlink()
    command = f"cd {old.root / 'code'} && slurm/python -m jobs.resume old"
    for verb, argv in ((resume, ["old"]), (shard, ["old", "2", "score"])):
        with pytest.raises(ValueError, match="launched by an earlier version") as e:
            ask(verb, old, *argv)
        assert command in str(e.value)
