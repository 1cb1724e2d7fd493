"""The look before a round's training: what is recorded, when it halts a run, and how a person lets it go on."""

import html
import json

import pytest
from report_run import do_curate, do_propose, do_respond, do_train, group, make_run

from jobs import report, status
from jobs.chain.gate import Entry, Gate, wish_path
from jobs.reporting.vitals import alarm_sentences, vital_facts, vital_table
from jobs.reporting.vitals import halt as halted_by
from jobs.runs.failures import failures
from jobs.runs.queue import EXIT_REQUEUE
from serl.run.rundir import RunError
from serl.safety.checkup import Unsafe, accept, accepted, halted, read_checkup, refusal
from serl.stages.read import round_groups
from serl.stages.train.guard import check

NUM_ANCHORS = 40


def answered(num_right: int, sure: int = 6):
    """Own questions as ever, and anchors of which `num_right` are voted on rightly."""
    own = [group(f"g{i}", [i % 5] * 4 + [7, 8, 9, None]) for i in range(30)]
    anchors = [
        group(f"s{i}", [0 if i < num_right else 1] * sure + [2] * (8 - sure), role="anchor")
        for i in range(NUM_ANCHORS)
    ]
    return own + anchors


@pytest.fixture
def run(tmp_path, small_tree):
    """Two rounds whose votes are mostly right, and a third whose votes have gone wrong; nobody has looked at it."""
    run = make_run(tmp_path, small_tree)
    for round, num_right in ((1, 24), (2, 26), (3, 8)):
        do_propose(run, round)
        do_curate(run, round)
        do_respond(run, round, answered(num_right))
    for round in (1, 2):
        do_train(run, round)
    return run


def look(run, round):
    return check(run, round, round_groups(run, round, completions=True))


def test_a_collapse_is_caught_before_the_next_round_trains(run):
    assert [look(run, r).verdict for r in (1, 2)] == ["go", "go"] and halted(run) is None
    checkup = look(run, 3)
    assert checkup.verdict == "stop" and [a.rule for a in checkup.alarms] == ["accuracy", "conviction"]
    assert checkup.vitals.accuracy == 8 / NUM_ANCHORS and checkup.alarms[0].figures["against_round"] == 2
    assert halted(run) == checkup == read_checkup(run, 3)
    unsafe = refusal(run, checkup)
    assert unsafe is not None and unsafe.verdict == "stop"
    assert (
        "policy 2" in str(unsafe)
        and "--accept 3" in str(unsafe)
        and str(run.stage_dir(1, "train") / "policy") in str(unsafe)
    )


def test_the_verdict_is_the_same_whoever_looked_before(run):
    """Earlier rounds are read from their records where there are any, else from their groups."""
    direct = look(run, 3)
    (run.stage_dir(3, "train") / "checkup.json").unlink()
    for r in (1, 2, 3):
        look(run, r)
    assert read_checkup(run, 3) == direct


def test_a_record_of_other_data_counts_for_nothing(run):
    look(run, 1)
    path = run.stage_dir(1, "train") / "checkup.json"
    saved = json.loads(path.read_bytes())
    saved["vitals"]["leads"] = dict.fromkeys(saved["vitals"]["leads"], 1.0)
    saved["inputs"]["respond/00000"] = "0" * 16
    path.write_text(json.dumps(saved))
    assert look(run, 3).alarms[0].figures["against_round"] == 2
    path.write_text("{torn")
    assert read_checkup(run, 1) is None and look(run, 3).verdict == "stop"


def test_an_accepted_round_goes_on_and_later_ones_are_measured_by_it(run):
    look(run, 3)
    assert accept(run, 3) == accept(run, 3)
    assert accepted(run, 3) and halted(run) is None and refusal(run, look(run, 3)) is None
    assert any("accepted" in s for s in alarm_sentences(run))
    note = json.loads((run.stage_dir(3, "train") / "accepted.json").read_bytes())
    assert "right in 20.0%" in note["alarms"][0]


def test_only_a_round_that_waits_can_be_accepted(run):
    for r in (1, 2, 3):
        look(run, r)
    for wrong in (0, 1, 4):
        with pytest.raises(RunError, match="round 3 waits for that"):
            accept(run, wrong)


def test_what_is_switched_off_or_only_warns_halts_nothing(tmp_path, small_tree):
    quiet = make_run(
        tmp_path, small_tree, safety={"accuracy": {"action": "warn"}, "conviction": {"action": "ignore"}}
    )
    for round, num_right in ((1, 24), (2, 2)):
        for do in (do_propose, do_curate):
            do(quiet, round)
        do_respond(quiet, round, answered(num_right))
    look(quiet, 1)
    assert look(quiet, 2).verdict == "go" and halted(quiet) is None
    assert [a["rule"] for a in vital_facts(quiet)[1]["alarms"]] == ["accuracy"]
    assert any("a warning" in s for s in alarm_sentences(quiet))


def test_a_run_says_in_its_report_what_fired(run, capsys):
    assert not vital_table(run) and halted_by(run) == []
    for r in (1, 2, 3):
        look(run, r)
    (told_why,), shown = halted_by(run), vital_table(run)
    assert "stopped by safety before round 3 trains" in told_why
    told = report.body([str(run.root)]).fields["halted"]
    assert told == told_why and capsys.readouterr().out.count(told) == 1
    assert told_why in html.unescape((run.root / "report.html").read_text().partition("<h2>")[0]), (
        "before any figure"
    )
    status.body([run.root.name, "--data", str(run.data_root)])
    assert capsys.readouterr().out.count("stopped by safety") == 1
    assert [row[0] for row in shown.rows] == [1, 2, 3] and shown.rows[2][1:3] == [
        "accuracy: stop, conviction: stop",
        f"0.200 ({NUM_ANCHORS})",
    ]


def halt(run, tmp_path, verdict: str, *, hold: bool = True) -> None:
    """What a rank 0 on Slurm does about a verdict on round 3."""
    (shard,) = run.shards(3, "train")
    entry = Entry(
        run=run, shard=shard, attempt="17-0", folder=str(tmp_path), gate=Gate(stages=()), max_attempts=1, hold=hold
    )
    entry.halt(Unsafe(verdict, f"{verdict}: the votes went wrong"))


def test_on_slurm_stop_ends_the_job_for_good_and_says_why(run, tmp_path):
    halt(run, tmp_path, "stop")
    assert not wish_path(str(tmp_path), "17").exists()
    assert [f["reason"] for f in failures(run)] == ["stop: the votes went wrong"]


def test_on_slurm_hold_keeps_the_job_in_the_queue_except_in_a_lane(run, tmp_path):
    with pytest.raises(SystemExit) as left:
        halt(run, tmp_path, "hold")
    assert left.value.code == EXIT_REQUEUE
    assert wish_path(str(tmp_path), "17").read_text() == "requeuehold"
    assert [f["reason"] for f in failures(run)] == ["hold: the votes went wrong"]
    wish_path(str(tmp_path), "17").unlink()
    halt(run, tmp_path, "hold", hold=False)
    assert not wish_path(str(tmp_path), "17").exists()
