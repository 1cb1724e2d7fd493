"""Processes that stand still are ended within their limit, their stacks in the log; work that is only slow, or suspended, is not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from serl.engines.tokenizer import build_tokenizer
from serl.run.events import Events, read_events
from serl.run.watchdog import EXIT_HUNG, Beat, Post, Watchdog, excluded, read_beats, record_hang, silent

REPO = Path(__file__).parents[2]
HERE = socket.gethostname()


def post_of(out: Path, rank: int, size: int, hang_s: float) -> Post:
    events = Events(out / "events", f"train-{rank}")
    return Post(
        folder=out,
        suspects=out / "suspects",
        events=events,
        job="7_1",
        attempt="7_1-0",
        rank=rank,
        size=size,
        hang_s=hang_s,
        host=HERE,
        beat_s=0.2,
    )


def start(out: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """This file as a process; its log is beside what it writes."""
    common = os.environ | {
        "PYTHONPATH": str(REPO),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with open(out / f"log_{environment.get('RANK', 0)}", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(out), *arguments],
            env=common | environment,
            stdout=log,
            stderr=log,
        )


def wait_for_step(post: Post, number: int) -> None:
    deadline = time.monotonic() + 300
    while True:
        beats = read_beats(post)
        if len(beats) == post.size and all(
            b.phase.startswith("step ") and int(b.phase[5:]) >= number for b in beats.values()
        ):
            return
        assert time.monotonic() < deadline, f"no rank came to step {number}: {beats}"
        time.sleep(0.05)


def test_a_stopped_rank_and_the_peer_that_waits_for_it_are_both_ended(tmp_path):
    build_tokenizer(["a tiny vocabulary 0 1 2"], 259, tmp_path / "base")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1])}
    ranks = [start(tmp_path, "train", RANK=str(r), LOCAL_RANK=str(r), **common) for r in range(2)]
    try:
        wait_for_step(post_of(tmp_path, 0, 2, 4.0), 3)
        ranks[1].send_signal(signal.SIGSTOP)
        codes = [p.wait(timeout=60) for p in ranks]
    finally:
        for p in ranks:
            p.kill()
    assert codes == [EXIT_HUNG, -signal.SIGKILL]
    log = (tmp_path / "log_0").read_text()
    # which collective the peer waits in depends on where in its step the other was stopped
    assert "All stacks" in log and 'trainer.py", line' in log and "distributed_c10d.py" in log, log[-3000:]
    (event,) = (e for e in read_events(tmp_path / "events") if e["kind"] == "hung")
    assert event["silent"] == f"rank 1 on {HERE}"
    assert json.loads((tmp_path / "suspects" / "7_1-0.json").read_text())["hosts"] == [HERE]


def test_a_process_that_stands_still_ends_with_its_stacks_and_its_children(tmp_path):
    process = start(tmp_path, "sleep")
    assert process.wait(timeout=30) == EXIT_HUNG
    log = (tmp_path / "log_0").read_text()
    assert "'load' has lasted 1 s, its limit is 1 s" in log and "raise hang_s" in log and "in hang" in log, (
        log
    )
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_is_suspended_longer_than_its_limit_goes_on(tmp_path):
    process = start(tmp_path, "walk")
    wait_for_step(post_of(tmp_path, 0, 1, 1.0), 3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=30) == 0, (tmp_path / "log_0").read_text()


def test_a_phase_may_take_ten_times_its_longest_predecessor(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watchdog = Watchdog()
    for name, now in (("load", 0.0), ("step 1", 50.0), ("step 2", 350.0), ("step 3", 360.0)):
        watchdog.phase(name)
    assert watchdog.limit_s(1800.0) == 3000.0
    watchdog.phase("save 3")
    assert watchdog.limit_s(1800.0) == 1800.0


def beat(rank: int, number: int, hung: bool = False) -> Beat:
    return Beat(
        attempt="1-0",
        rank=rank,
        host=f"node{rank}",
        pid=1,
        born=0.0,
        number=number,
        phase="step 3",
        phase_s=9.0,
        hung=hung,
    )


def test_who_gives_no_sign_of_life_is_silent_but_not_who_is_leaving():
    before = {0: beat(0, 5), 1: beat(1, 5), 2: beat(2, 5)}
    after = {0: beat(0, 8, hung=True), 1: beat(1, 5), 2: beat(2, 5, hung=True), 3: beat(3, 1)}
    assert [b.rank for b in silent(before, after)] == [1]


def hang(out: Path, attempt: str, *hosts: str) -> None:
    post = Post(
        folder=out,
        suspects=out / "suspects",
        events=Events(out, "e"),
        job="7",
        attempt=attempt,
        rank=0,
        size=1,
        hang_s=1.0,
        host="n3",
    )
    record_hang(post, hosts, beat(0, 1))


def test_a_node_is_excluded_after_two_strikes_and_the_batch_script_can_read_it(tmp_path):
    hang(tmp_path, "7-0", "node1")
    hang(tmp_path, "7-0", "node2")  # another rank of the same attempt: the first word counts
    assert excluded(tmp_path / "suspects") == [] and not (tmp_path / "exclude-7").exists()
    hang(tmp_path, "7-1", "node1")
    assert excluded(tmp_path / "suspects") == ["node1"]
    assert (tmp_path / "exclude-7").read_text() == "node1"


def test_hosts_that_may_all_be_to_blame_share_the_strike(tmp_path):
    for attempt in range(3):
        hang(tmp_path, f"7-{attempt}", "node1", "node2")
    assert excluded(tmp_path / "suspects") == []
    hang(tmp_path, "7-3", "node1", "node2")
    assert excluded(tmp_path / "suspects") == ["node1", "node2"]


def test_the_number_of_excluded_nodes_is_bounded(tmp_path):
    for i in range(40):
        hang(tmp_path, f"7-{i}", f"node{i % 20:02d}")
    assert len(excluded(tmp_path / "suspects")) == 8


def hang_with_a_child(out: Path) -> None:
    watchdog = Watchdog()
    watchdog.guard(post_of(out, 0, 1, hang_s=1.0))
    (out / "child").write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
    watchdog.phase("load")
    time.sleep(1000)


def walk(out: Path) -> None:
    watchdog = Watchdog()
    watchdog.guard(post_of(out, 0, 1, hang_s=1.0))
    for i in range(30):
        watchdog.phase(f"step {i}")
        time.sleep(0.05)


def train(out: Path) -> None:
    """Optimizer steps for ever, on the real DeepSpeed."""
    import torch
    import train_ranks as job

    from serl.engines.ranks import join_ranks
    from serl.engines.trainer import Trainer
    from serl.learning.algorithms import policy_loss

    torch.set_num_threads(1)
    watchdog, ranks, samples = Watchdog(), join_ranks("cpu"), job.make_samples()
    trainer = Trainer(
        job.make_model(out / "base"), job.settings(2), ranks=ranks, horizon=10**6, seed=job.SEED
    )
    for number in range(10**6):
        watchdog.phase(f"step {number}")
        trainer.step(samples, policy_loss(job.OBJECTIVE))
        if number == 0:
            watchdog.guard(post_of(out, ranks.rank, ranks.size, hang_s=4.0))


if __name__ == "__main__":
    {"sleep": hang_with_a_child, "walk": walk, "train": train}[sys.argv[2]](Path(sys.argv[1]))
