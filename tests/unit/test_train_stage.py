"""What attempts at a training leave to each other: curves without repeated steps, and log-probabilities."""

from types import SimpleNamespace

import pytest
from report_run import group

from serl.records import groups_to_parquet
from serl.run.events import Events
from serl.run.rundir import Run
from serl.run.signals import Preempted, Stop
from serl.stages.work import Work

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
torch = pytest.importorskip("torch")
frozen = pytest.importorskip("serl.stages.train.frozen")

from serl.engines.trainer import StepStats
from serl.learning.columns import Samples, read_answers
from serl.stages.train import start
from serl.stages.train.course import Course


class Steps:
    """A trainer that does nothing but count."""

    def __init__(self, begun_at: int = 0):
        self.step_index, self.settings = begun_at, None

    def load(self, folder) -> None:
        return None

    def step(self, samples, loss) -> StepStats:
        self.step_index += 1
        n = self.step_index
        return StepStats(step=n, lr=0.1, loss=float(n), grad_norm=1.0, samples=1, tokens=1, means={})


def draw(run: Run, attempt: str, begun_at: int, *, until: int) -> None:
    """What an attempt records that goes on after step `begun_at`."""
    (shard,) = run.shards(1, "train")
    events = Events(run.root / "events", attempt)
    work = Work(run=run, shard=shard, attempt_id=attempt, device="cpu", cores=1, events=events, stop=Stop())
    alone = SimpleNamespace(first=True, any=bool)
    course = Course(work, alone, work.attempt({}), Steps(begun_at), total=until)
    course.resume()
    while course.done < until:
        course.step([], None)


@pytest.mark.parametrize(("killed_at", "saved_at"), [(7, 5), (3, 0)])
def test_no_step_is_drawn_twice_by_attempts_that_follow_each_other(run, killed_at, saved_at):
    """One that was killed before its first checkpoint used to leave its steps in the curves for good."""
    draw(run, "first", 0, until=killed_at)
    draw(run, "second", saved_at, until=9)
    curves = accumulator.EventAccumulator(str(run.root / "tensorboard" / "train")).Reload()
    assert [e.step for e in curves.Scalars("loss")] == list(range(1, 10))


def test_log_probabilities_are_kept_part_by_part_and_none_is_computed_twice(run, monkeypatch):
    """A preemption used to wait for, or to lose, all of them: the longest phase of a round with many answers."""
    monkeypatch.setattr(frozen, "PART_SAMPLES", 4)
    groups = [group(str(i), [0, 0, 1]) for i in range(3)]
    samples = Samples(read_answers([groups_to_parquet(groups)], [True] * 3))
    alone = SimpleNamespace(first=True, any=bool, from_first=lambda value: value)
    seen: list[int] = []

    def attempt(id: str, leave_after: int) -> object:
        (shard,) = run.shards(1, "train")
        events = Events(run.root / "events", id)
        work = Work(run=run, shard=shard, attempt_id=id, device="cpu", cores=1, events=events, stop=Stop())

        def logprobs(mine: list) -> list[torch.Tensor]:
            seen.append(len(mine))
            work.stop.requested = len(seen) >= leave_after
            return [torch.full((s.num_response,), float(len(seen))) for s in mine]

        trainer = SimpleNamespace(logprobs=logprobs, temperature=1.0)
        return frozen.log_probabilities(work, alone, work.attempt({}), trainer, samples)

    with pytest.raises(Preempted):
        attempt("first", leave_after=2)
    logp = attempt("second", leave_after=9)
    assert seen == [4, 4, 1]
    assert logp.old_T.tolist() == logp.ref_T.tolist() == [1.0] * 8 + [2.0] * 8 + [3.0] * 2


@pytest.mark.parametrize(("kl", "asked"), [(0.0, False), (1e-3, True)])
def test_no_reference_is_loaded_where_there_is_no_kl(monkeypatch, kl, asked):
    """A pass of the reference over a whole round used to be made for a number that was multiplied by 0."""
    loaded: list[str] = []
    monkeypatch.setattr(start, "policy_dir", lambda *_: ("folder", "base"))
    monkeypatch.setattr(start, "starting_weights", lambda *_: ("folder", "policy"))
    monkeypatch.setattr(start, "frozen_logprobs", lambda *_, **__: loaded.append("reference"))
    section = SimpleNamespace(objective=SimpleNamespace(kl=kl), reference="base", init="previous", role="policy")
    config = SimpleNamespace(trained=lambda *_: SimpleNamespace(round=1))
    work = SimpleNamespace(stage=SimpleNamespace(section=section), run=SimpleNamespace(config=config))
    start.reference(work, None, 1.0, moving=False)
    assert bool(loaded) == asked
