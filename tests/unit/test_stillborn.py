"""Jobs that end before a word of ours: what is told of them, from their Slurm log or from Slurm alone."""

import pytest
from fake_slurm import install

from jobs.runs import attempts, state
from jobs.runs.failures import record_failure
from jobs.runs.queue import Journal, Queued, Submission
from jobs.runs.state import state_of
from jobs.runs.stillborn import stillborn
from serl.run.events import Events

SCONTROL = """#!/bin/bash
cat "$FAKE/scontrol-${@: -1}" 2> /dev/null || { echo "Invalid job id specified" >&2; exit 1; }
"""
SACCT = """#!/bin/bash
cat "$FAKE/sacct" 2> /dev/null || { echo "Slurm accounting storage is disabled" >&2; exit 1; }
"""
EXECVE = "slurmstepd-n0: error: execve(): /nope/python: No such file or directory"
NOISE = "srun: cluster configuration lacks support for cpu binding"
ENDED = "srun: error: n0: task 0: Exited with exit code {}\nsrun: launch/slurm: _step_signal: Terminating StepId=7.0"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "look_at_queue", list)
    return install(tmp_path, monkeypatch, {"scontrol": SCONTROL, "sacct": SACCT})


@pytest.fixture
def submission(run) -> Submission:
    made = Submission(token="tok", job="r001-respond", shards=(0, 2), id="7", array=True)
    Journal(run.root).add(made)
    return made


def log(run, text: str, name: str = "7_1_0") -> None:
    folder = run.root / "logs/r001-respond/tok"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_log.out").write_text(text)


def reasons(run, submission, *queue: Queued) -> list[str]:
    return [b.reason for b in stillborn(run, [submission], queue)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{NOISE}\n{EXECVE}\n{ENDED.format(2)}\n", "execve(): /nope/python: No such file or directory (exit code 2)"),
        (
            f"{NOISE}\npython: Error while finding module specification (No module named 'jobs')\n{ENDED.format(1)}",
            "python: Error while finding module specification (No module named 'jobs') (exit code 1)",
        ),
        (
            "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'submitit'\n",
            "ModuleNotFoundError: No module named 'submitit' (exit code 3)",
        ),
        ("/spool/slurm_script: line 30: module: command not found\n", "line 30: module: command not found (exit code 3)"),
        (f"{NOISE}\n", "its log says nothing (exit code 3)"),
    ],
)  # fmt: skip
def test_the_last_word_of_its_log_and_its_exit_code_say_why(run, submission, slurm, text, reason):
    log(run, text)
    (slurm / "scontrol-7").write_text(
        "JobId=9 ArrayJobId=7 ArrayTaskId=1 JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0\n"
    )
    assert reasons(run, submission) == [f"job 7_1 ended before its Python began: {reason}"]


def test_without_a_log_slurm_tells_and_where_it_was_cancelled_nothing_failed(run, submission, slurm):
    assert reasons(run, submission) == []  # nobody knows anything
    (slurm / "sacct").write_text("7_0|CANCELLED by 0|0:0\n7_1|FAILED|0:53\n")
    (only,) = reasons(run, submission)
    assert "job 7_1" in only and "logs/r001-respond/tok" in only and "exit code 0, signal 53" in only


def test_a_step_that_slurm_ended_after_its_peers_is_no_preemption_but_a_preempted_job_is_no_failure(
    run, submission, slurm
):
    step = "slurmstepd-n0: error: *** STEP 7.0 ON n0 CANCELLED AT 2026-03-04T10:00:00 ***"
    log(run, f"{EXECVE}\n{step}\n{ENDED.format(2)}")
    assert len(reasons(run, submission)) == 1
    log(run, "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-03-04T10:01:00 DUE TO PREEMPTION ***")
    assert reasons(run, submission) == []


def test_what_is_queued_or_has_spoken_or_has_a_record_is_left_alone(run, submission, slurm):
    log(run, EXECVE)
    waiting = Queued(id="7_1", state="PENDING", held=False, where="", token="tok")
    assert reasons(run, submission, waiting) == []
    shard = run.shards(1, "respond")[2]
    record_failure(run, shard, "7_1-0", "ValueError: no")
    assert reasons(run, submission) == []
    record_failure(run, shard, "6_1-0", "of a job before")
    assert len(reasons(run, submission)) == 1
    told = {"stage": "respond", "round": 1, "shard": 2}
    Events(run.root / "events", "respond-r001-00002-7_1-0-0", **told).add("start")
    assert reasons(run, submission) == []


def test_status_and_logs_tell_it_once_however_many_died_alike(run, submission, slurm, monkeypatch):
    monkeypatch.setattr(attempts, "queue_or_silence", lambda: ([], ""))
    log(run, f"{EXECVE}\n{ENDED.format(2)}", "7_0_0")
    log(run, f"{EXECVE}\n{ENDED.format(2)}", "7_1_0")
    found = state_of(run)
    assert found.word == "failed"
    assert found.causes() == [
        "round 1 respond 1/3: job 7_0 ended before its Python began: execve(): /nope/python: No such file or "
        "directory (exit code 2) (1 more alike)"
    ]
    assert len(found.facts()["failures"]) == 2
    shards = run.shards(1, "respond")
    hows = {i: [a.how for a in attempts.attempts(run, shards)[shards[i]]] for i in (0, 1, 2)}
    assert hows[1] == [] and all("ended before its Python began" in hows[i][0] for i in (0, 2))
