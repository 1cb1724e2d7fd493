"""What state a run is said to be in, and how long it will take, whoever is at work on it."""

from dataclasses import replace

import pytest
from report_run import do_score, make_run
from rich.console import Console

from jobs import state as states
from jobs import status
from jobs.progress import Going, StageState, run_eta_s, span
from jobs.queue import Journal, Queued, SlurmError, Submission
from jobs.runs import claim
from jobs.state import Looks, activities
from jobs.task import record_failure
from serl.rundir import Run


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
    assert word(run, monkeypatch, queued("PENDING", held=True), behind) == "held", "by Slurm, without a word of ours"
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


def test_one_look_at_the_queue_serves_all_runs_and_none_is_made_for_runs_without_jobs(submitted, tmp_path, small_tree, monkeypatch):
    calls = []
    monkeypatch.setattr(states, "look_at_queue", lambda: calls.append(1) or [queued("RUNNING")])
    other = make_run(tmp_path, small_tree)
    assert [bool(a) for a in activities([submitted, other, submitted])] == [True, False, True] and len(calls) == 1
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
    assert states.facts_now(submitted)["queue_unknown"] == "squeue: no answer"
    assert status.body(["small", "--data", str(submitted.data_root)]) == 0
    assert "the queue is unknown: squeue: no answer" in capsys.readouterr().out


def stage(name: str, done: int, total: int, seconds: float = 0.0, *going: Going) -> StageState:
    return StageState(name=name, shards_done=done, num_shards=total, going=going, seconds=seconds, counts={})


def test_the_time_left_is_that_of_earlier_rounds():
    at_work = Going(done=25, total=100, unit="x", started=0.0, last=10.0)
    known = [stage("r001-respond", 1, 1, 50.0), stage("r001-train", 1, 1, 20.0)]
    assert run_eta_s([*known, stage("r002-respond", 0, 1, 0.0, at_work), stage("r002-train", 0, 1)], now=10.0) == pytest.approx(30.0 + 20.0)
    assert run_eta_s([*known, stage("r002-respond", 1, 2), stage("r002-train", 1, 1, 9.0)], now=10.0) == pytest.approx(25.0)
    assert run_eta_s([stage("r001-respond", 0, 1)], now=0.0) is None, "nothing is known of a stage that was never done"


def test_lengths_of_time_read_well():
    assert [span(s) for s in (None, 0.4, 59.6, 61, 3599.9, 7322)] == ["", "0 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "2 h 02 min"]


def test_a_narrow_terminal_keeps_the_columns_that_matter(run, monkeypatch):
    console = Console(width=80, record=True)
    console.print(
        status.status_table([stage("r001-respond", 12, 300, 0.0, Going(done=5, total=64, unit="questions", started=0.0, last=2.0))], 2.0)
    )
    said = console.export_text()
    assert "r001-respond" in said and "12/300" in said and "5/64 questions" in said and "2.5/s" in said
