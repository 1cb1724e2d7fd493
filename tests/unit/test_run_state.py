"""What state a run is said to be in, and how long it will take, whoever is at work on it."""

import os
import sys
from dataclasses import replace

import pytest
from report_run import do_score, make_run
from rich.console import Console

from jobs import status
from jobs.chain.local import ShardFailed
from jobs.runs import state as states
from jobs.runs.failures import record_failure
from jobs.runs.processes import claim
from jobs.runs.progress import Going, Look, StageState, run_eta_s, span, told
from jobs.runs.queue import Journal, Queued, SlurmError, Submission
from jobs.runs.state import Looks, activities
from jobs.shell import command
from serl.run.rundir import Run


@pytest.fixture
def submitted(run) -> Run:
    Journal(run.root).add(Submission(token="mine", job="r001-propose", shards=(0, 1), id="7", array=True))
    return run


def queued(state: str, id: str = "7_0", *, held: bool = False, token: str = "mine") -> Queued:
    return Queued(id=id, state=state, held=held, where="n1", token=token)


def word(run: Run, monkeypatch, *queue: Queued) -> str:
    monkeypatch.setattr(states, "look_at_queue", lambda: list(queue))
    return Looks()([run])[0].word


def test_each_state_has_its_word(submitted, monkeypatch):
    run = submitted
    assert word(run, monkeypatch) == "stopped"
    assert word(run, monkeypatch, queued("RUNNING", token="somebody else's")) == "stopped"
    assert word(run, monkeypatch, queued("PENDING")) == "queued"
    assert word(run, monkeypatch, queued("PENDING", held=True)) == "held"
    assert word(run, monkeypatch, queued("PENDING", held=True), queued("PENDING", "7_1")) == "queued"
    behind = replace(queued("PENDING", "8"), where="(Dependency)")
    assert word(run, monkeypatch, queued("PENDING", held=True), behind) == "held", (
        "by Slurm, without a word of ours"
    )
    assert word(run, monkeypatch, queued("PENDING"), behind) == "queued"
    assert word(run, monkeypatch, queued("PENDING"), queued("RUNNING", "7_1")) == "running"
    record_failure(run, run.shards(1, "propose")[0], "7_0-0", "ValueError: no", "")
    assert word(run, monkeypatch) == "failed"
    claim(run.root)
    assert word(run, monkeypatch) == "running"


def test_a_finished_run_is_done_whatever_failed_on_the_way(tmp_path, small_tree, monkeypatch):
    small_tree |= {"rounds": 0}
    run = make_run(tmp_path, small_tree, rounds=0)
    do_score(run, 0, num=5)
    record_failure(run, run.shards(0, "score")[0], "1-0", "x", "")
    assert word(run, monkeypatch) == "done" and Looks()([run])[0].causes() == []


def test_one_look_at_the_queue_serves_all_runs_and_none_is_made_for_runs_without_jobs(
    submitted, tmp_path, small_tree, monkeypatch
):
    calls = []
    monkeypatch.setattr(states, "look_at_queue", lambda: calls.append(1) or [queued("RUNNING")])
    other = make_run(tmp_path, small_tree)
    assert [bool(a) for a in activities([submitted, other, submitted])] == [True, False, True] and len(
        calls
    ) == 1
    activities([other])
    assert len(calls) == 1


def test_what_waits_is_told_with_slurms_reason(submitted, monkeypatch, capsys):
    """Some never end by themselves: a time limit beyond the partition's, say."""
    waiting = replace(queued("PENDING"), where="(PartitionTimeLimit)")
    monkeypatch.setattr(states, "look_at_queue", lambda: [waiting, queued("RUNNING", "7_1")])
    status.body(["small", "--data", str(submitted.data_root)])
    assert "in the queue: 1 pending (PartitionTimeLimit), 1 running; nodes n1" in capsys.readouterr().out


def test_a_silent_controller_hides_the_queue_and_nothing_else(submitted, monkeypatch, capsys):
    def refuse():
        raise SlurmError("squeue: no answer")

    monkeypatch.setattr(states, "look_at_queue", refuse)
    assert states.state_of(submitted).facts()["queue_unknown"] == "squeue: no answer"
    assert status.body(["small", "--data", str(submitted.data_root)]) == 0
    assert "the queue is unknown: squeue: no answer" in capsys.readouterr().out


def test_no_reason_log_or_message_can_write_to_the_terminal_by_itself(run, capsys, monkeypatch):
    """An exception may quote what a model wrote: colours, a window's title, a screen wiped, text turned around."""
    evil = "ValueError: \x1b[2J\x1b]0;title\x07 [bold]x[/bold] \u202e\nsecond line"
    record_failure(run, run.shards(1, "propose")[0], "1-0", evil, "")
    assert status.body(["small", "--data", str(run.data_root)]) == 0
    monkeypatch.setattr(sys, "argv", ["jobs/verb.py"])

    def fail(argv):
        raise ShardFailed(evil)

    with pytest.raises(SystemExit):
        command.main(fail)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "ValueError: \\x1b[2J\\x1b]0;title\\x07 [bold]x[/bold] \\u202e\nsecond line" in text
        assert not set(text) & set("\x1b\x07\u202e")


def stage(name: str, done: int, total: int, seconds: float = 0.0, *going: Going) -> StageState:
    return StageState(name=name, shards_done=done, num_shards=total, going=going, seconds=seconds, counts={})


def test_the_time_left_is_that_of_earlier_rounds():
    at_work = Going(done=25, total=100, unit="x", started=0.0, last=10.0)
    known = [stage("r001-respond", 1, 1, 50.0), stage("r001-train", 1, 1, 20.0)]
    assert run_eta_s(
        [*known, stage("r002-respond", 0, 1, 0.0, at_work), stage("r002-train", 0, 1)], now=10.0
    ) == pytest.approx(30.0 + 20.0)
    assert run_eta_s(
        [*known, stage("r002-respond", 1, 2), stage("r002-train", 1, 1, 9.0)], now=10.0
    ) == pytest.approx(25.0)
    assert run_eta_s([stage("r001-respond", 0, 1)], now=0.0) is None, (
        "nothing is known of a stage that was never done"
    )


def test_lengths_of_time_read_well():
    assert [span(s) for s in (None, 0.4, 59.6, 61, 3599.9, 7322)] == [
        "",
        "0 s",
        "1 min 00 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 02 min",
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_however_many_shards_are_at_work_no_column_of_figures_is_cut(width):
    """Twelve of 128 shards at work, each told apart, once pushed shards, rate and time out of any terminal."""
    many = [Going(done=5 + i, total=1400, unit="answers", started=0.0, last=2.0) for i in range(12)]
    late = Going(done=0, total=0, unit="", started=0.0, last=0.0)
    console = Console(width=width, record=True)
    console.print(
        status.status_table(
            [stage("r001-respond", 12, 128, 0.0, *many, late), stage("r001-train", 1, 1, 75.0)], 2.0
        )
    )
    header, first, second = console.export_text().splitlines()
    assert header.split()[:5] == ["job", "shards", "rate", "took,", "left"]
    assert (
        first.split()[:3] == ["r001-respond", "12/128", "#"]
        and "63.0/s  9 min 18 s  126/16800 answers" in first
    )
    assert "starting" in first or width == 80
    assert "1/1  ##########          1 min 15 s" in second


def test_a_line_that_a_crash_tore_costs_no_more_than_itself(run):
    """A full disk leaves half a line, and what is written after it stands on the same one."""
    folder = run.root / "events"
    whole = '{"time": %d, "kind": "progress", "done": %d, "total": 10, "unit": "answers"}\n'
    (folder / "propose-r001-00000-1-0-0.jsonl").write_text(
        "".join(whole % (n, n) for n in (1, 2)) + '{"time": 3, "ki' + whole % (3, 3) + "7\n"
    )
    (going,) = Look(run)()[0].going
    assert (going.done, going.started, going.last) == (2, 1, 2)


def test_the_newest_attempt_is_the_one_that_is_shown(run):
    folder = run.root / "events"
    for age, (attempt, done) in enumerate({"1-1": 4, "1-0": 9}.items()):
        path = folder / f"propose-r001-00000-{attempt}-0.jsonl"
        path.write_text(
            f'{{"time": 1, "kind": "progress", "done": {done}, "total": 10, "unit": "answers"}}\n'
        )
        os.utime(path, (100 - age, 100 - age))
    assert [g.done for g in Look(run)()[0].going] == [4] and Look(run)(live=False)[0].going == ()


def test_counts_are_read_without_exponents():
    assert (
        told({"tokens": 1337520.0, "kept_share": 0.25, "mismatch_kl": 1.25e-5})
        == "tokens 1,337,520, kept share 0.25, mismatch kl 1.25e-05"
    )
    assert told({"loss": float("nan"), "clip": float("inf")}) == "loss nan, clip inf"
