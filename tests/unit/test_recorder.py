"""The curves of a training, across attempts."""

from types import SimpleNamespace

import pytest

from serl.events import Events
from serl.preempt import Stop
from serl.rundir import Run
from serl.stages import Work

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
train = pytest.importorskip("serl.stages.train")


def draw(run: Run, attempt: str, begun_at: int, *, until: int) -> None:
    """What an attempt records that goes on after step `begun_at`."""
    (shard,) = run.shards(1, "train")
    events = Events(run.root / "events", attempt)
    work = Work(run=run, shard=shard, attempt_id=attempt, device="cpu", cores=1, events=events, stop=Stop())
    record = train._recorder(work, SimpleNamespace(first=True), begun_at)
    for step in range(begun_at + 1, until + 1):
        record(train.StepStats(step=step, lr=0.1, loss=float(step), grad_norm=1.0, samples=1, tokens=1, means={}))


@pytest.mark.parametrize(("killed_at", "saved_at"), [(7, 5), (3, 0)])
def test_no_step_is_drawn_twice_by_attempts_that_follow_each_other(run, killed_at, saved_at):
    """One that was killed before its first checkpoint used to leave its steps in the curves for good."""
    draw(run, "first", 0, until=killed_at)
    draw(run, "second", saved_at, until=9)
    curves = accumulator.EventAccumulator(str(run.root / "tensorboard" / "train")).Reload()
    assert [e.step for e in curves.Scalars("loss")] == list(range(1, 10))
