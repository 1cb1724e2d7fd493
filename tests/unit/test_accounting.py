"""What was used and what of it was lost, from event files as attempts leave them."""

import json
import os
from pathlib import Path

import pytest

from jobs.costs.accounting import Account, account
from jobs.runs.queue import Journal, Submission
from serl.run.attempt import Attempt
from serl.run.rundir import Run


def attempt(
    run: Run, stage: str, index: int, id: str, *events: tuple, start: float, rank: int = 0, **first: object
) -> Path:
    """An event file: `events` are (seconds after `start`, kind, fields)."""
    path = run.root / "events" / f"{stage}-r001-{index:05d}-{id}-{rank}.jsonl"
    path.parent.mkdir(exist_ok=True)
    always = {"stage": stage, "round": 1, "shard": index}
    lines = [
        {
            "time": start,
            "kind": "start",
            **always,
            "attempt": id,
            "device": "cpu",
            "ranks": 1,
            "gpus": 2,
            "boot_s": 2.0,
        }
        | first
    ]
    lines += [{"time": start + at, "kind": kind, **always, **fields} for at, kind, fields in events]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def load(at: float, seconds: float, stage: str = "propose") -> tuple:
    return at, "phase", {"name": f"{stage} load", "seconds": seconds}


def part(at: float, number: int, seconds: float, stage: str = "propose") -> tuple:
    return at, "phase", {"name": f"{stage} part {number}", "seconds": seconds, "items": 4, "tokens": 100}


def step(at: float, number: int) -> tuple:
    return at, "step", {"step": number, "tokens_per_s": 100.0}


def publish(run: Run, stage: str, index: int, id: str) -> None:
    Attempt(run, run.shards(1, stage)[index], id=id, inputs={}).publish_bytes(".jsonl", b"", 0)


def lost(result: Account) -> dict[str, float]:
    return {cause: pytest.approx(s, abs=0.01) for cause, s in result.total.lost_s.items()}


def balanced(result: Account) -> bool:
    """Used is kept and lost, of each attempt, and nothing else."""
    kept = sum(t.kept_s * t.ranks for t in result.total.tries)
    return result.total.used_s == pytest.approx(kept + result.total.all_lost_s)


def test_an_undisturbed_shard_loses_nothing(run):
    attempt(
        run, "propose", 0, "9-1", load(5, 4), part(15, 0, 14), part(25, 1, 10), (26, "done", {}), start=100.0
    )
    publish(run, "propose", 0, "9-1")
    result = account(run)
    assert result.total.used_s == 28.0 and result.total.gpu_hours == pytest.approx(28 * 2 / 3600)
    assert result.total.lost_s == {} and balanced(result)
    assert result.total.sentence() == "used 28 s of tasks, 0.02 GPU-hours in 1 attempts; lost nothing"


def test_parts_of_a_killed_attempt_survive_and_what_came_after_them_is_lost(run):
    attempt(run, "propose", 0, "9-1", load(5, 4), part(15, 0, 14), part(25, 1, 10), start=100.0)
    (run.root / "logs/r001-propose/shard_00000.a1").mkdir(parents=True)
    beat = run.root / "logs/r001-propose/shard_00000.a1/heartbeat-9-00000.json"
    beat.write_text(json.dumps({"attempt": "9-1"}))
    os.utime(beat, (131.0, 131.0))  # alive until six seconds after its last part
    attempt(run, "propose", 0, "10-2", load(4, 3), part(16, 2, 14), (17, "done", {}), start=200.0)
    publish(run, "propose", 0, "10-2")
    result = account(run)
    assert lost(result) == {"killed": 6.0 + 7.0}
    assert result.total.all_lost_gpu_hours == pytest.approx(13 * 2 / 3600)
    assert balanced(result)


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ((30, "failed", {"error": "RuntimeError"}), "failed"),
        ((30, "hung", {"phase": "part 1"}), "hung"),
        ((30, "stopped", {"asked": True, "left_s": 5000.0}), "preempted"),
        ((30, "stopped", {"asked": True, "left_s": 100.0}), "time limit"),
        ((30, "stopped", {"asked": False, "left_s": 400.0}), "time limit"),
    ],
)
def test_an_attempts_last_word_tells_why_it_ended(run, word, cause):
    Journal(run.root).add(Submission(token="t", job="r001-propose", shards=(0,), id="9"))
    attempt(run, "propose", 0, "9-0", load(5, 4), part(15, 0, 14), word, start=100.0)
    attempt(run, "propose", 0, "9-1", load(5, 4), part(15, 1, 14), (16, "done", {}), start=200.0)
    publish(run, "propose", 0, "9-1")
    assert lost(account(run)) == {cause: 15.0 + 7.0}


def test_without_a_scheduler_who_is_asked_to_stop_was_cancelled(run):
    attempt(
        run,
        "propose",
        0,
        "9-1",
        load(5, 4),
        part(15, 0, 14),
        (18, "stopped", {"asked": True, "left_s": None}),
        start=100.0,
    )
    result = account(run)
    assert lost(result) == {"cancelled": 3.0 + 7.0}


def test_a_process_that_its_time_limit_ended_without_a_word_is_told_by_the_clock(run):
    attempt(run, "propose", 0, "9-0", load(5, 4), part(15, 0, 14), start=100.0, until=125.0)
    assert lost(account(run)) == {"time limit": 7.0}
    attempt(
        run,
        "propose",
        0,
        "9-0",
        load(5, 4),
        part(15, 0, 14),
        (17, "progress", {"done": 4, "total": 8, "unit": "prompts"}),
        start=100.0,
        until=125.0,
    )
    assert lost(account(run)) == {"time limit": 2.0 + 7.0}


def test_an_attempt_that_nobody_has_seen_end_is_at_work_while_the_run_lives(run):
    attempt(run, "propose", 0, "9-1", load(5, 4), start=100.0)
    living = account(run, live=True, now=160.0)
    assert (living.total.tries[0].ended, living.total.used_s, living.total.lost_s) == ("at work", 62.0, {})
    assert account(run, now=160.0).total.tries[0].ended == "killed"


def test_the_slower_of_two_live_attempts_worked_for_nothing(run):
    attempt(
        run, "propose", 0, "9-0", load(5, 4), part(15, 0, 14), part(25, 1, 10), (26, "done", {}), start=100.0
    )
    attempt(run, "propose", 0, "12-0", load(5, 4), part(15, 1, 14), (16, "done", {}), start=110.0)
    publish(run, "propose", 0, "9-0")
    result = account(run)
    assert lost(result) == {"duplicate": 18.0} and balanced(result)


def test_steps_after_the_last_checkpoint_are_lost_and_those_before_it_are_not(run):
    steps = [step(10 + 2 * n, n) for n in range(1, 8)]
    attempt(run, "train", 0, "9-0", *steps, start=100.0, ranks=4)
    attempt(
        run,
        "train",
        0,
        "9-1",
        (9, "resumed", {"step": 5}),
        *[step(10 + 2 * n, 5 + n) for n in range(1, 4)],
        (18, "done", {}),
        start=200.0,
        ranks=4,
    )
    publish(run, "train", 0, "9-1")
    result = account(run)
    assert lost(result) == {"killed": 4 * (4.0 + 12.0)}
    assert result.jobs["r001-train"].used_s == 4 * (26.0 + 20.0) and balanced(result)


def test_a_training_that_saved_as_it_left_loses_its_start_up_only(run):
    Journal(run.root).add(Submission(token="t", job="r001-train", shards=(0,), id="9"))
    attempt(
        run,
        "train",
        0,
        "9-0",
        step(12, 1),
        step(14, 2),
        (19, "stopped", {"asked": True, "left_s": 9000.0}),
        start=100.0,
    )
    attempt(run, "train", 0, "9-1", step(12, 3), (15, "done", {}), start=200.0)
    publish(run, "train", 0, "9-1")
    assert lost(account(run)) == {"preempted": 12.0}


def test_a_rank_that_raised_because_its_peer_was_killed_was_killed(run):
    attempt(
        run, "train", 0, "9-0", step(12, 1), (19, "failed", {"error": "RuntimeError"}), start=100.0, ranks=2
    )
    attempt(run, "train", 0, "9-0", start=100.0, rank=1, ranks=2)
    assert account(run).total.tries[0].ended == "killed"


def test_facts_are_plain_and_by_stage(run):
    attempt(run, "propose", 0, "9-1", load(5, 4), part(15, 0, 14), (16, "done", {}), start=100.0)
    publish(run, "propose", 0, "9-1")
    facts = account(run).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (
        facts["stages"]["r001-propose"]["used_s"] == 18.0 and facts["stages"]["r002-train"]["attempts"] == 0
    )
