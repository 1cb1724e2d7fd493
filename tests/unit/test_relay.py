"""What is submitted when Slurm takes only so many jobs: sbatch is a small script here that counts and refuses, `tests/flow/test_window` has the real one."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import install
from test_submission import CLUSTER, FAKES

from jobs.chain import batch, sbatch, slurm, window
from jobs.chain.cancel import cancel
from jobs.chain.slurm import submit_missing
from jobs.chain.ticket import turn
from jobs.chain.window import RELAY, Relay, Room, full, middle, one_turn
from jobs.plan.chain import plan
from jobs.plan.cluster import Slurm
from jobs.runs import queue
from jobs.runs.failures import BLOCKED, failures, record_failure
from jobs.runs.queue import EXIT_REQUEUE, Journal, SlurmError, _parse_queue, look_at_queue
from serl.run.attempt import Attempt
from serl.run.rundir import Run

# A queue of lines `ID TOKEN STATE`, one for each element; beyond $FAKE/most of them sbatch refuses.
SBATCH = """#!/bin/bash
script=${!#}
[ "$(sed -n 's/.*--job-name=//p' $script)" != "$(cat $FAKE/refuse 2> /dev/null)" ] || { echo "sbatch: error: Invalid qos" >&2; exit 1; }
size=$(sed -n 's/#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $script); token=$(sed -n 's/.*"token":"\\([^"]*\\)".*/\\1/p' $script)
if [ $(($(wc -l < $FAKE/queue) + ${size:-0} + 1)) -gt $(cat $FAKE/most) ]; then
    echo "sbatch: error: ${FAKE_WORDS:-AssocMaxSubmitJobLimit}" >&2; exit 1
fi
id=$((100 + $(ls $FAKE | wc -l))); cp $script $FAKE/script-$id
for i in $(seq 0 ${size:-0}); do echo -e "$id${size:+_$i}\\tPENDING\\t9\\t(Dependency)\\t{\\"token\\": \\"$token\\"}" >> $FAKE/queue; done
case "$*" in *--parsable*) echo $id ;; *) echo Submitted batch job $id ;; esac
"""
SCANCEL = """#!/bin/bash
for id; do sed -i "/^$id\\(_[0-9]*\\)\\?\\t/d" $FAKE/queue; echo $id >> $FAKE/cancelled; done
"""
SCONTROL = """#!/bin/bash
case $1 in update) echo "$@" >> $FAKE/updated ;; *) echo MaxArraySize = 1001; [ ! -e $FAKE/maxjobs ] || echo MaxJobCount = $(cat $FAKE/maxjobs) ;; esac
"""


@pytest.fixture
def cluster() -> Slurm:
    return Slurm.model_validate(CLUSTER, strict=False)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    folder = install(
        tmp_path, monkeypatch, FAKES | {"sbatch": SBATCH, "scancel": SCANCEL, "scontrol": SCONTROL}
    )
    (folder / "queue").touch()
    (folder / "most").write_text("1000")
    return folder


def work(run: Run) -> list[tuple[str, int]]:
    """What is in the queue, in the order of the plan, once for each job; relays left out."""
    by_token = {s.token: s for s in Journal(run.root).submissions()}
    found = [
        (by_token[q.token].job, by_token[q.token].shards[q.position])
        for q in look_at_queue()
        if by_token[q.token].job != RELAY
    ]
    return sorted(
        found,
        key=lambda pair: ([job.name for job in plan(run.config, lambda s: False)].index(pair[0]), pair[1]),
    )


def everything(run: Run) -> list[tuple[str, int]]:
    return [(job.name, s.index) for job in plan(run.config, lambda s: False) for s in job.missing]


def relays(run: Run) -> list[str]:
    tokens = {s.token for s in Journal(run.root).submissions() if s.job == RELAY}
    return [q.id for q in look_at_queue() if q.token in tokens]


def finish(run: Run, fake: Path, number: int) -> None:
    """The first `number` jobs of the queue end, with their manifests."""
    by_token = {s.token: s for s in Journal(run.root).submissions()}
    shards = {(job.name, s.index): s for job in plan(run.config, lambda s: False) for s in job.missing}
    lines = fake.joinpath("queue").read_text().splitlines()
    mine = [line for line, q in zip(lines, _parse_queue(lines)) if by_token[q.token].job != RELAY]
    for line, q in zip(mine[:number], _parse_queue(mine)):
        shard = shards[by_token[q.token].job, by_token[q.token].shards[q.position]]
        Attempt(run, shard, id="x", inputs={}).publish_bytes(".jsonl", b"", 0)
        lines.remove(line)
    (fake / "queue").write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize("most", [2, 3, 5, 9])
def test_a_window_is_filled_to_the_last_place_and_one_of_them_is_the_relays(
    run, cluster, fake, tmp_path, most
):
    (fake / "most").write_text(str(most))
    new = submit_missing(run, cluster)
    assert len(relays(run)) == 1 and new[-1].job == RELAY and new[-1].id == relays(run)[0]
    assert work(run) == everything(run)[: most - 1], (
        "what comes first is submitted first, arrays in part if need be"
    )
    waits = (fake / "updated").read_text().split()
    assert waits[-1].startswith("Dependency=afterany:") and waits[-2] == f"JobId={relays(run)[0]}"
    passes = 0
    while any(not run.done(s) for job in plan(run.config, run.done) for s in job.missing):
        finish(run, fake, 1 + (most - 1) // 2)
        submit_missing(run, cluster, note=tmp_path / "note")
        missing = [(job.name, s.index) for job in plan(run.config, run.done) for s in job.missing]
        assert work(run) == missing[: most - 1] and len(relays(run)) == 1
        passes += 1
    submissions = [(s.job, i) for s in Journal(run.root).submissions() if s.id for i in s.shards]
    assert sorted(submissions) == sorted(everything(run)), "nothing was submitted twice"
    assert passes <= len(everything(run))


def test_a_window_that_fits_all_needs_no_relay_and_one_of_a_single_job_is_refused(run, cluster, fake):
    new = submit_missing(run, cluster)
    assert relays(run) == [] and work(run) == everything(run) and new[-1].job != RELAY
    (fake / "queue").write_text("")
    (fake / "most").write_text("1")
    with pytest.raises(SlurmError, match="a single job.*room for two jobs or more.*jobs.resume"):
        submit_missing(run, cluster)
    assert work(run) == relays(run) == [], "nobody is left to wait for what cannot come"


def test_a_resume_that_finds_room_for_all_sends_the_relay_home(run, cluster, fake):
    (fake / "most").write_text("4")
    submit_missing(run, cluster)
    (fake / "most").write_text("1000")
    submit_missing(run, cluster)
    assert relays(run) == [] and work(run) == everything(run)


def test_a_relay_submits_what_was_never_tried_and_lets_a_failure_spread(run, cluster, fake, tmp_path):
    """What failed, was cancelled or is held, is for people: a relay that tried it again would do so for ever."""
    (fake / "most").write_text("6")
    submit_missing(run, cluster)
    assert work(run) == everything(run)[:5]
    relay, _, *others = (fake / "queue").read_text().splitlines(keepends=True)
    first = work(run)[0]
    (fake / "queue").write_text("".join([relay, *others]))
    (shard,) = [s for s in run.shards(1, "propose") if s.index == first[1]]
    record_failure(run, shard, "7-0", "ValueError: the cause", "")
    (fake / "most").write_text("1000")
    new = submit_missing(run, cluster, note=tmp_path / "note")
    assert first not in work(run) and all("r002" not in job and "train" not in job for job, _ in work(run)), (
        work(run)
    )
    assert new == [] or new[-1].job != RELAY
    reasons = {f["shard"]: f["reason"] for f in failures(run)}
    assert reasons[str(shard)] == "ValueError: the cause" and reasons[
        str(run.shards(2, "train")[0])
    ].startswith(BLOCKED)
    submit_missing(run, cluster)
    assert work(run) == everything(run), "a resume starts all of it again"


def test_a_held_job_is_replaced_by_people_and_left_alone_by_a_relay(run, cluster, fake, tmp_path):
    (fake / "most").write_text("4")
    submit_missing(run, cluster)
    text = (fake / "queue").read_text()
    (fake / "queue").write_text(text.replace("\t9\t", "\t0\t", 1))
    held = text.split()[0]
    submit_missing(run, cluster, note=tmp_path / "note")
    assert held not in (fake / "cancelled").read_text().split() if (fake / "cancelled").exists() else True
    assert (
        "Dependency=afterany:" in (tmp_path / "note").read_text()
        and held not in (tmp_path / "note").read_text().split(":")[1]
    )
    submit_missing(run, cluster)
    assert held in (fake / "cancelled").read_text().split()


def test_beyond_max_job_count_nothing_is_offered_since_sbatch_would_sleep(run, cluster, fake):
    (fake / "maxjobs").write_text("5")
    new = submit_missing(run, cluster)
    assert len(work(run)) == 4 and new[-1].job == RELAY, (
        "one place below the limit is left free, and the relay takes it"
    )


def test_another_refusal_is_not_taken_for_a_full_window(run, cluster, fake):
    (fake / "refuse").write_text(f"serl-{run.root.name}-r001-respond")
    with pytest.raises(SlurmError, match="r001-respond: sbatch refused: .*Invalid qos"):
        submit_missing(run, cluster)
    assert relays(run) == [], "nobody tries again what will be refused again"
    assert (
        full("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        and full("Slurm temporarily unable to accept job, sleeping")
        and not full("Invalid account")
    )


def test_a_launcher_that_dies_leaves_a_relay_that_goes_on(run, cluster, fake, tmp_path, monkeypatch):
    def die(*_, real=slurm.submit_shards, **told):
        if work(run):
            raise KeyboardInterrupt
        return real(*_, **told)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(slurm, "submit_shards", die)
        submit_missing(run, cluster)
    assert len(relays(run)) == 1 and work(run) == everything(run)[:2]
    submit_missing(run, cluster, note=tmp_path / "note")
    assert work(run) == everything(run)


def test_the_room_is_found_in_few_offers():
    """Whatever it is, at most about two for each of its binary digits."""
    rng = random.Random(0)
    for _ in range(300):
        true, wanted = rng.randrange(1, 1000), rng.randrange(1, 2000)
        room, taken, offers = Room(), 0, 0
        while taken < wanted and (size := room.offer(wanted - taken)):
            offers += 1
            if taken + size <= true:
                room.took(size)
                taken += size
            else:
                room.refused(size)
        assert taken == min(true, wanted) and offers <= 24, (true, wanted, offers)


def test_a_relay_waits_for_the_middle_of_the_queue():
    assert middle([]) is None and middle(["1"]) == "1" and middle(["1_0", "1_1", "2", "3"]) == "2"


def test_the_relays_script_asks_for_little_and_comes_back_with_what_to_wait_for(cluster, tmp_path):
    relay = Relay(
        folder=tmp_path,
        name="small",
        cluster=cluster,
        code=tmp_path / "code",
        arguments=("-m", "jobs.chain.slurm", "/data/my runs/small"),
    )
    text = relay.text("TOKEN", "7_3")
    for line in (
        "--job-name=serl-small-relay",
        "--dependency=afterany:7_3",
        "--partition=cpu",
        "--cpus-per-task=1",
        "--mem=2GB",
        f"--chdir={tmp_path}/code",
        "--requeue",
    ):
        assert f"#SBATCH {line}\n" in text, line
    assert "gpus" not in text and "module load cuda" in text and "#SBATCH --time=60\n" in text
    short = cluster.model_copy(update={"time_min": 20})
    assert "#SBATCH --time=20\n" in replace(relay, cluster=short).text("TOKEN", None), (
        "a partition of 30 minutes would never start it"
    )
    assert (
        f"/env/bin/python -u -m jobs.chain.slurm '/data/my runs/small' {tmp_path}/logs/relay/TOKEN/after-$me\n"
        in text
    )
    assert text.index("scontrol $how $me") < text.index(
        f"scontrol update JobId=$me $(cat {tmp_path}/logs/relay/TOKEN/after-$me)"
    )
    assert json.loads(text.split("--comment='")[1].split("'")[0]) == {
        "run": "small",
        "stage": "relay",
        "token": "TOKEN",
    }


def test_only_one_submits_at_a_time_and_a_dead_holder_is_not_waited_for(tmp_path):
    order = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            with turn(tmp_path):
                os._exit(0)  # dies in its turn
        os.waitpid(pid, 0)
        with turn(tmp_path) as renew:
            renew()
            order.append(number)
    assert order == [0, 1, 2] and len(list((tmp_path / "turns").iterdir())) <= 4


def test_a_relay_tries_again_when_slurm_or_the_file_system_is_away(tmp_path):
    for trouble in (SlurmError("squeue: no answer"), OSError(116, "Stale file handle")):

        def submit(trouble=trouble):
            raise trouble

        assert (
            one_turn(tmp_path / "note", submit) == EXIT_REQUEUE
            and (tmp_path / "note").read_text() == "StartTime=now+60"
        )


def test_cancel_ends_the_relay_too(run, cluster, fake):
    (fake / "most").write_text("4")
    submit_missing(run, cluster)
    assert cancel(run) == 4 and work(run) == relays(run) == []


def in_child(act: Callable[[], None]) -> int:
    """The pid of a process that does this and nothing else."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return pid


def dying(point: int) -> Callable[[], None]:
    """The process ends at its n-th point: before or after anything is written to the journal, or handed to Slurm."""
    seen = 0

    def around(call):
        def wrapped(*args, **kwargs):
            nonlocal seen
            for before in (True, False):
                seen += 1
                if seen == point:
                    os._exit(9)
                if before:
                    result = call(*args, **kwargs)
            return result

        return wrapped

    def install() -> None:
        Journal.add = around(Journal.add)
        slurm.ask_slurm = window.ask_slurm = batch.ask_slurm = around(queue.ask_slurm)
        sbatch._Executor.submit_array = around(sbatch._Executor.submit_array)

    return install


def test_a_relay_killed_at_any_point_loses_and_doubles_nothing(run, cluster, fake, tmp_path):
    """Three jobs have ended; the relay submits what fits then, dies at one point after the other, and starts again."""
    (fake / "most").write_text("5")
    submit_missing(run, cluster)
    finish(run, fake, 3)
    expected = [(job.name, s.index) for job in plan(run.config, run.done) for s in job.missing][:4]
    saved = {p: p.read_bytes() for p in (fake / "queue", run.root / "slurm.jsonl")}
    note, point, deaths = tmp_path / "note", 0, 0
    while True:
        point += 1
        for path, content in saved.items():
            path.write_bytes(content)
        install = dying(point)
        _, status = os.waitpid(
            in_child(lambda install=install: (install(), submit_missing(run, cluster, note=note))), 0
        )
        if os.waitstatus_to_exitcode(status) == 0:
            break
        deaths += 1
        submit_missing(run, cluster, note=note)
        assert work(run) == expected and len(relays(run)) == 1, f"died at point {point}"
    assert deaths >= 10 and work(run) == expected


def test_two_relays_at_once_submit_everything_once(run, cluster, fake, tmp_path):
    """The first attempt lives on, cut off with its node, while Slurm starts the second elsewhere."""
    (fake / "most").write_text("5")
    submit_missing(run, cluster)
    finish(run, fake, 3)
    expected = [(job.name, s.index) for job in plan(run.config, run.done) for s in job.missing][:4]
    for pid in [
        in_child(lambda n=n: submit_missing(run, cluster, note=tmp_path / f"note{n}")) for n in range(3)
    ]:
        os.waitpid(pid, 0)
    assert work(run) == expected
