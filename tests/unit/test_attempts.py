"""Every attempt at a shard in one timeline: requeued jobs in one file, ranks that started apart, attempts that left events only, or logs only."""

import json
from datetime import datetime

import pytest

from jobs.logs import body
from jobs.runs.attempts import attempts
from jobs.runs.failures import record_failure
from jobs.runs.queue import Journal, Submission
from serl.run.attempt import Attempt
from serl.run.events import Events

DAY = "2026-03-04"


def at(clock: str) -> float:
    return datetime.fromisoformat(f"{DAY}T{clock}").timestamp()


def start(clock: str, job: str, host: str, rank: int = 0, size: int = 1, attempt: str = "") -> str:
    """What submitit says, and what the task says next if it comes to that."""
    said = f"this is attempt {attempt}\n" if attempt else ""
    return said_first(clock, job, host, rank, size) + said


def said_first(clock: str, job: str, host: str, rank: int, size: int) -> str:
    return f"submitit INFO ({DAY} {clock},250) - Starting with JobEnvironment(job_id={job}, hostname={host}, local_rank=0(1), node={rank}({size}), global_rank={rank}({size}))\n"


def log(run, job_name: str, folder: str, name: str, text: str) -> None:
    path = run.root / "logs" / job_name / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{name}_log.out").write_text(text)


def events(run, shard, attempt: str, rows: list[tuple[str, dict]], rank: int = 0) -> None:
    path = run.root / "events" / f"{shard.stage}-r{shard.round:03d}-{shard.index:05d}-{attempt}-{rank}.jsonl"
    always = {"stage": shard.stage, "round": shard.round, "shard": shard.index}
    path.write_text(
        "".join(json.dumps({"time": at(clock), **always, **fields}) + "\n" for clock, fields in rows)
    )


@pytest.fixture
def requeued(run):
    """An array of two elements, as shards 0 and 2; element 1 was preempted, then killed before it said anything, then went through."""
    Journal(run.root).add(Submission(token="tok", job="r001-respond", shards=(0, 2), id="7", array=True))
    text = (
        "srun: hello\n"
        + start("10:00:00", "7_1", "n1", attempt="7_1-0")
        + "working\r10%\rworking 20%\nINFO 03-04 10:00:05 [vllm.py:1] loaded\nno time of its own\n"
    )
    text += f"slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT {DAY}T10:01:00 DUE TO PREEMPTION ***\n"
    text += (
        start("10:10:00", "7_1", "n2")
        + "srun: error: n2: task 0: Killed\n"
        + start("10:20:00", "7_1", "n3", attempt="7_1-2")
        + f"submitit INFO ({DAY} 10:21:00,500) - Job completed successfully\n"
    )
    log(run, "r001-respond", "tok", "7_1_0", text)
    log(run, "r001-respond", "tok", "7_0_0", start("10:00:00", "7_0", "n1"))
    shard = run.shards(1, "respond")[2]
    events(
        run,
        shard,
        "7_1-0",
        [
            ("10:00:02", {"kind": "start"}),
            ("10:00:30", {"kind": "progress", "done": 1, "total": 4, "unit": "questions"}),
        ],
    )
    events(
        run,
        shard,
        "7_1-2",
        [("10:20:01", {"kind": "start"}), ("10:21:00", {"kind": "done", "seconds": 58.0})],
    )
    Attempt(run, shard, id="7_1-2", inputs={}).publish_bytes(".parquet", b"x", 1)
    return run


def test_a_requeued_jobs_file_is_cut_into_its_attempts(requeued):
    shard = requeued.shards(1, "respond")[2]
    first, second, third = attempts(requeued, [shard])[shard]
    assert [a.id for a in (first, second, third)] == ["7_1-0", "7_1, start 2", "7_1-2"]
    assert [list(a.hosts) for a in (first, second, third)] == [["n1"], ["n2"], ["n3"]]
    assert [a.how for a in (first, second, third)] == [
        "ended by Slurm: due to preemption",
        "no last word",
        "done",
    ]


def test_logs_and_events_are_in_one_order_and_lines_without_a_time_stay_with_those_before(requeued):
    shard = requeued.shards(1, "respond")[2]
    first = attempts(requeued, [shard])[shard][0]
    told = [
        (datetime.fromtimestamp(line.time).strftime("%H:%M:%S"), line.text.partition(" (")[0][:28].strip())
        for line in first.lines
    ]
    assert told == [
        ("10:00:00", "srun: hello"), ("10:00:00", "submitit INFO"), ("10:00:00", "this is attempt 7_1-0"), ("10:00:00", "working 20%"), ("10:00:02", "* start"),
        ("10:00:05", "INFO 03-04 10:00:05 [vllm.py"), ("10:00:05", "no time of its own"), ("10:00:30", "* 1 of 4 questions"), ("10:01:00", "slurmstepd: error: *** JOB 7"),
    ]  # fmt: skip


def test_an_arrays_elements_are_told_apart_by_their_shards(requeued):
    found = attempts(requeued, requeued.shards(1, "respond"))
    assert [len(found[s]) for s in requeued.shards(1, "respond")] == [1, 0, 3]


def test_ranks_that_started_apart_are_one_attempt(run):
    Journal(run.root).add(Submission(token="tok", job="r001-train", shards=(0,), id="9"))
    log(
        run,
        "r001-train",
        "tok",
        "9_0",
        start("10:00:04", "9", "n0", 0, 2) + start("11:00:00", "9", "n0", 0, 2, "9-4"),
    )
    log(
        run,
        "r001-train",
        "tok",
        "9_1",
        start("10:00:00", "9", "n1", 1, 2) + "rank 1 of the first\n" + start("11:00:03", "9", "n2", 1, 2, "9-4"),
    )
    shard = run.shards(1, "train")[0]
    events(
        run,
        shard,
        "9-4",
        [("11:00:05", {"kind": "start"}), ("11:00:09", {"kind": "failed", "error": "RuntimeError"})],
    )
    first, second = attempts(run, [shard])[shard]
    assert (first.id, first.ranks, list(first.hosts)) == ("9, start 1", {0, 1}, ["n0", "n1"])
    assert any(line.text == "rank 1 of the first" and line.rank == 1 for line in first.lines)
    assert (second.id, second.how, list(second.hosts)) == ("9-4", "failed: RuntimeError", ["n0", "n2"])


def test_local_attempts_and_those_of_the_debugger_are_found(run):
    shard = run.shards(1, "propose")[1]
    log(
        run,
        "r001-propose",
        "shard_00001.a3",
        "555_0",
        start("09:00:00", "555", "here") + "Traceback (most recent call last):\n  File x\nValueError: no\n",
    )
    events(run, shard, "here-123", [("09:30:00", {"kind": "start"}), ("09:31:00", {"kind": "stopped"})])
    raised, stopped = attempts(run, [shard])[shard]
    assert (raised.id, raised.how) == ("555-3", "ValueError: no")
    assert (stopped.id, stopped.how, stopped.hosts) == ("here-123", "stopped at a safe point", {})


def test_a_recorded_failure_is_how_it_ended(run):
    shard = run.shards(1, "propose")[0]
    Events(run.root / "events", "propose-r001-00000-4_0-0-0", stage="propose", round=1, shard=0).add("start")
    record_failure(run, shard, "4_0-0", "held: 20 attempts without progress", "")
    (attempt,) = attempts(run, [shard])[shard]
    assert attempt.how == "held: 20 attempts without progress"


def say(capsys, run, *argv: str) -> str:
    assert body([*argv, "--data", str(run.data_root)]) == 0
    return capsys.readouterr().out


def test_the_verb_lists_attempts_and_prints_timelines_without_control_characters(requeued, capsys):
    log(
        requeued,
        "r001-propose",
        "shard_00000.a1",
        "5_0",
        start("08:00:00", "5", "n0") + "\x1b[31mred\x1b]8;;http://x\x07\n",
    )
    overview = say(capsys, requeued, "small")
    assert "r001-respond 2" in overview and "7_1-2" in overview and "r001-train" not in overview
    timeline = say(capsys, requeued, "small", "respond", "2", "--attempt", "7_1-2")
    assert timeline.count("== ") == 1 and "on n3" in timeline and "10:21:00 * done: seconds 58.0" in timeline
    assert "\x1b" not in say(capsys, requeued, "small", "r001-propose") and "7_1" not in say(
        capsys, requeued, "small", "propose"
    )


def test_following_a_run_that_nobody_runs_prints_it_once_and_ends(requeued, capsys, monkeypatch):
    monkeypatch.setattr("jobs.runs.state.look_at_queue", list)
    assert say(capsys, requeued, "small", "respond", "2", "--follow").count("10:21:00 * done") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["score"], "small has no score; it has r001-propose"), (["respond", "9"], "shard 9: respond has shards 0 to 2"), (["respond", "--attempt", "nope"], "no attempt nope at respond")],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(run, argv, message):
    with pytest.raises(ValueError, match=message):
        body(["small", *argv, "--data", str(run.data_root)])
