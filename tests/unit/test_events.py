"""Events: one writer, one file; torn lines are left out, and nothing else is."""

import json
import os
import signal

import pytest

from serl.run.events import Events, read_events
from serl.run.signals import Preempted, Stop


def test_events_are_read_back_with_what_is_always_said(tmp_path):
    Events(tmp_path / "events", "b", stage="train").add("step", loss=0.5)
    Events(tmp_path / "events", "a", stage="propose", shard=3).add(
        "note", text="line\nbreak \u2028 \x1b[31m é"
    )
    first, second = read_events(tmp_path / "events")
    assert (first["kind"], first["shard"], first["text"]) == ("note", 3, "line\nbreak \u2028 \x1b[31m é")
    assert (second["kind"], second["stage"], second["loss"]) == ("step", "train", 0.5)
    assert all(event["time"] > 1e9 for event in (first, second))


def test_an_event_is_on_disk_when_add_returns(tmp_path):
    """A killed process must not take what it has said with it."""
    pid = os.fork()
    if pid == 0:
        Events(tmp_path, "w").add("said", n=1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [event["n"] for event in read_events(tmp_path)] == [1]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_left_out_and_the_rest_is_read(tmp_path, cut):
    events = Events(tmp_path, "w")
    for n in range(3):
        events.add("n", n=n)
    path = tmp_path / "w.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [event["n"] for event in read_events(tmp_path)] == [0, 1]
    Events(tmp_path, "w").add("n", n=9)
    Events(tmp_path, "w").add("n", n=10)
    assert [event["n"] for event in read_events(tmp_path)] == [0, 1, 10]


def test_a_writer_adds_whole_lines_of_ascii(tmp_path):
    Events(tmp_path, "w").add("x", text="é" * 10_000)
    data = (tmp_path / "w.jsonl").read_bytes()
    assert data.isascii() and data.count(b"\n") == 1
    assert json.loads(data)["text"] == "é" * 10_000


def test_a_signal_is_held_until_a_safe_point():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
    try:
        for number in (signal.SIGTERM, signal.SIGUSR2):
            stop = Stop().listen()
            stop.safe_point()
            os.kill(os.getpid(), number)
            assert stop.requested
            with pytest.raises(Preempted):
                stop.safe_point()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
