"""A course of optimizer steps: resumed, recorded, checkpointed, left at safe points, and published. All ranks
together.

Where a role's optimizer goes on through a phase (`carry: phase`), a course begins where the round's before
ended: its steps are numbered on, in checkpoints and in the schedule, while people see the round's own.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from torch.utils.tensorboard import SummaryWriter

from serl.engines.keeper import Extra, Resumed
from serl.engines.ranks import Ranks
from serl.engines.slices import Sealed
from serl.engines.trainer import StepStats, Trainer
from serl.learning.batch import Sample
from serl.learning.objective import Loss
from serl.records import Group
from serl.run.attempt import Attempt
from serl.run.files import rename_if_absent
from serl.run.rundir import RunError
from serl.run.signals import Preempted
from serl.stages import read
from serl.stages.kind import AT, Stage
from serl.stages.work import POLICY_FOLDER, Work

CARRY = "carry"  # beside a published policy: the optimizer's state, for the next round of the phase


class Course:
    """The steps of one training stage. `total` is how many there will be at most; `within` the policy that is
    published, in folders of these names, are models that are trained beside it.
    """

    def __init__(
        self,
        work: Work,
        ranks: Ranks,
        attempt: Attempt,
        trainer: Trainer,
        *,
        total: int,
        within: Mapping[str, Trainer] = MappingProxyType({}),
    ):
        self.work, self.ranks, self.trainer, self.total = work, ranks, trainer, total
        self.attempt, self._within = attempt, within
        self._checkpoints = attempt.folder / f"checkpoints.{attempt.key}"
        self._first = self._adopt()
        self._longest_s = self._save_s = 0.0
        self._board: SummaryWriter | None = None

    @property
    def done(self) -> int:
        """Steps of this round so far."""
        return self.trainer.step_index - self._first

    def resume(self) -> Extra:
        """Go on from the newest checkpoint, if there is one; what the caller had saved with it."""
        safe_point(self.work, self.ranks)
        self.work.phase("resume")
        resumed: Resumed | None = self.trainer.load(self._checkpoints)
        if resumed:
            self.work.events.add("resumed", step=self.done, rejected="; ".join(resumed.rejected))
        if self.ranks.first:
            folder, before = self.work.run.root / "tensorboard", _steps_before(self.work)
            name = "base" if self.work.shard.round == 0 else self.work.shard.stage
            # what earlier attempts drew beyond the checkpoint is hidden
            self._board = SummaryWriter(str(folder / name), purge_step=before + self.done + 1)
        self._clock = time.monotonic()
        return resumed.extra if resumed else {}

    def step(self, samples: Sequence[Sample], loss: Loss) -> StepStats:
        """One optimizer step, recorded."""
        begun = time.monotonic()
        self.work.phase(f"step {self.done + 1}")
        stats = self.trainer.step(samples, loss)
        self._longest_s = max(self._longest_s, time.monotonic() - begun)
        if self.ranks.first:
            now = time.monotonic()
            numbers = {"loss": stats.loss, "lr": stats.lr, "grad_norm": stats.grad_norm}
            numbers |= {"tokens_per_s": stats.tokens / (now - self._clock)} | stats.means
            self._clock = now
            self.work.events.add("step", step=self.done, **{k: float(f"{v:.6g}") for k, v in numbers.items()})
            self.draw(numbers, self.at)
        return stats

    @property
    def at(self) -> int:
        """Steps of the stage in all rounds so far: the step axis of TensorBoard."""
        return _steps_before(self.work) + self.done

    def draw(self, numbers: Mapping[str, float], at: int) -> None:
        """Scalars for TensorBoard, where this rank writes them."""
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, at)
            self._board.flush()

    def rest(self, extra: Extra, *, last: bool, due: bool, next_s: float | None = None) -> None:
        """Between two pieces of work: save if it is `due`, and leave if any rank was asked to.

        What comes next takes `next_s`, a step if nothing is said. At the `last` it is saved, too: a kill in
        the export must not cost steps.
        """
        coming_s = (self._longest_s if next_s is None else next_s) + 2 * self._save_s
        leave = not last and self.ranks.any(self.work.stop.due(coming_s))
        if leave or last or due:
            begun = time.monotonic()
            self.work.phase(f"save {self.done}")
            behind = self.trainer.settings.checkpoint_behind and not leave
            self.trainer.save(self._checkpoints, extra, behind=behind)
            self._save_s = max(self._save_s, time.monotonic() - begun)
        if leave:
            raise Preempted
        if self.ranks.first:
            self.work.progress(self.done, self.total, "steps")

    def publish(
        self,
        tokenizer,
        counts: Mapping[str, float],
        *,
        kept: Sequence[Group] | None = None,
        beside: Mapping[str, bytes] | None = None,
    ) -> None:
        """Give the policy to the world, and the optimizer to the next round where it goes on; `kept` passed
        the filter.
        """
        folder, sealed = self._exported(self.attempt, tokenizer)
        self.trainer.fence()
        if _goes_on(self.work):
            self._hand_on()
        if self.ranks.first:
            self.work.skip(self.work.run.config.milestones(self.work.stage))
            if kept is not None:
                read.write_kept(folder, kept)
            more = {"steps": self.done, "ranks": self.ranks.size}
            self.attempt.publish_folder(
                folder, POLICY_FOLDER, {**counts, **more}, sealed=sealed, beside=beside or {}
            )

    def publish_along(self, turn: int, tokenizer, learned: int) -> None:
        """Give the weights after a turn to those who look at them while training goes on, unless an attempt
        before has; `learned` answers they were trained on.
        """
        run, begun = self.work.run, time.monotonic()
        (shard,) = run.shards(self.work.shard.round, f"{self.work.shard.stage}{AT}{turn}")
        if self.ranks.from_first(run.done(shard)):
            return
        attempt = Attempt(run, shard, id=self.work.attempt_id, inputs=self.attempt.inputs)
        folder, sealed = self._exported(attempt, tokenizer)
        if self.ranks.first:
            counts = {"turns": turn, "steps": self.done, "samples": learned}
            attempt.publish_folder(folder, POLICY_FOLDER, counts, sealed=sealed)
            self.work.events.add("published", turn=turn, seconds=round(time.monotonic() - begun, 3))
        self.ranks.barrier()

    def _exported(self, attempt: Attempt, tokenizer) -> tuple[Path, dict[str, Sealed]]:
        """The weights as they are, in a folder of this attempt; what its writers know of the files."""
        folder = attempt.folder / f"{POLICY_FOLDER}.{self.work.attempt_id}"
        self.work.phase(f"export {self.done}")
        sealed = self.trainer.export(folder, tokenizer)
        for name, trainer in self._within.items():
            more = trainer.export(folder / name, tokenizer)
            sealed |= {f"{name}/{file}": seal for file, seal in more.items()}
        return folder, sealed

    def _hand_on(self) -> None:
        """The optimizer's state, whole or not at all; that of an attempt before is as good."""
        partial = self.attempt.folder / f"{CARRY}.{self.work.attempt_id}"
        self.trainer.export_state(partial)
        if self.ranks.first and not rename_if_absent(partial, self.attempt.stage_dir / CARRY):
            shutil.rmtree(partial)
        self.ranks.barrier()

    def _adopt(self) -> int:
        """Take over the optimizer of the phase's round before, where it goes on; the step that it had come
        to.
        """
        before = _handed_on_by(self.work)
        if before is None:
            return 0
        folder = self.work.run.stage_dir(before.round, before.name) / CARRY
        if not folder.is_dir():
            raise RunError(
                f"{folder}: the optimizer of round {before.round} is not there, and phase {before.phase} "
                "carries it on; "
                f"restore it, or launch anew with phases.{before.phase}.carry: round"
            )
        return self.trainer.adopt(folder)


def safe_point(work: Work, ranks: Ranks, next_s: float = 0.0) -> None:
    """Between two long phases nothing is in flight: all ranks leave here together, if any was asked to or has
    not `next_s` seconds left.
    """
    if ranks.any(work.stop.due(next_s)):
        raise Preempted


def horizon(work: Work, own: int) -> int:
    """Steps of the learning-rate schedule: a round's own, or those of all rounds where the optimizer goes
    on.
    """
    if not work.shard.round:
        return max(1, own)
    _, phase, _ = work.run.config.phase(work.shard.round)
    return max(1, own * (phase.rounds if phase.carry == "phase" else 1))


def _goes_on(work: Work) -> bool:
    """Whether a later round of the phase takes over the optimizer."""
    if not work.shard.round:
        return False
    _, phase, first = work.run.config.phase(work.shard.round)
    return phase.carry == "phase" and work.shard.round < first + phase.rounds - 1


def _handed_on_by(work: Work) -> Stage | None:
    """The training of the same role in the round before, where its optimizer goes on."""
    if not work.shard.round:
        return None
    _, phase, first = work.run.config.phase(work.shard.round)
    if phase.carry != "phase" or work.shard.round == first:
        return None
    return work.run.config.stage(work.shard.round - 1, work.shard.stage)


def _steps_before(work: Work) -> int:
    """Optimizer steps of the stage in earlier rounds."""
    config, name = work.run.config, work.shard.stage
    earlier = [config.stage(r, name) for r in range(1, work.shard.round) if config.has(r, name)]
    return int(sum(m.counts["steps"] for stage in earlier for m in read.left(work.run, stage)))
