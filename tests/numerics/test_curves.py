"""The curves of training: each step once, whatever became of the attempts that drew it."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from serl.engines.ranks import Ranks
from serl.engines.trainer import StepStats
from serl.run.events import Events
from serl.run.signals import Stop
from serl.stages.train.course import Course
from serl.stages.work import Work


class Counting:
    """A trainer whose steps only count; `loss` tells whose they are."""

    def __init__(self, resumed_at: int, loss: float):
        self.step_index, self.loss = resumed_at, loss

    def load(self, folder) -> None:
        return None

    def step(self, samples, loss) -> StepStats:
        self.step_index += 1
        n = self.step_index
        return StepStats(step=n, lr=1e-4, loss=self.loss, grad_norm=1.0, samples=1, tokens=10, means={})


def test_a_step_is_drawn_once_also_after_an_attempt_that_left_no_checkpoint(run):
    """A training that was preempted before its first checkpoint begins again, and once drew everything a second time."""
    (shard,) = run.shards(1, "train")
    for attempt, (resumed_at, until) in enumerate(((0, 5), (0, 8), (6, 10))):
        events = Events(run.root / "events", f"train-r001-00000-{attempt}-0", stage="train", round=1, shard=0)
        work = Work(
            run=run, shard=shard, attempt_id=str(attempt), device="cpu", cores=1, events=events, stop=Stop()
        )
        alone = Ranks(rank=0, size=1, device=torch.device("cpu"))
        trainer = Counting(resumed_at, float(attempt))
        course = Course(work, alone, work.attempt({}), trainer, total=until)
        course.resume()
        while course.done < until:
            course.step([], None)
    drawn = EventAccumulator(str(run.root / "tensorboard" / "train")).Reload().Scalars("loss")
    assert [e.step for e in drawn] == list(range(1, 11))
