"""The curves of training: each step once, whatever became of the attempts that drew it."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from serl.engines.ranks import Ranks
from serl.engines.trainer import StepStats
from serl.run.events import Events
from serl.run.signals import Stop
from serl.stages.train.run import _recorder
from serl.stages.work import Work


def test_a_step_is_drawn_once_also_after_an_attempt_that_left_no_checkpoint(run):
    """A training that was preempted before its first checkpoint begins again, and once drew everything a second time."""
    (shard,) = run.shards(1, "train")
    for attempt, (resumed_at, until) in enumerate(((0, 5), (0, 8), (6, 10))):
        events = Events(run.root / "events", f"train-r001-00000-{attempt}-0", stage="train", round=1, shard=0)
        work = Work(
            run=run, shard=shard, attempt_id=str(attempt), device="cpu", cores=1, events=events, stop=Stop()
        )
        record = _recorder(work, Ranks(rank=0, size=1, device=torch.device("cpu")), resumed_at)
        for step in range(resumed_at + 1, until + 1):
            record(
                StepStats(
                    step=step, lr=1e-4, loss=float(attempt), grad_norm=1.0, samples=1, tokens=10, means={}
                )
            )
    drawn = EventAccumulator(str(run.root / "tensorboard" / "train")).Reload().Scalars("loss")
    assert [e.step for e in drawn] == list(range(1, 11))
    assert [e.value for e in drawn] == [1.0] * 6 + [2.0] * 4
