"""The critic of a training in turns: it values the states of a turn's answers under its first weights, and
takes a step whenever the policy takes one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from serl.config.objectives import Ppo
from serl.engines.trainer import StepStats, Trainer
from serl.learning.batch import Sample
from serl.learning.ppo import ValueLoss
from serl.stages.train.section import Train


class Critic:
    """A model with a scalar head beside the policy's trainer, in whose checkpoints its state is kept."""

    def __init__(self, start: Path, settings: Train, policy: Trainer):
        kind = settings.objective
        assert isinstance(kind, Ppo), "only PPO has a critic"
        optimizer = settings.optimizer.model_copy(update={"lr": kind.critic.lr or settings.optimizer.lr})
        self.trainer = Trainer(
            start,
            settings.model_copy(update={"optimizer": optimizer}),
            ranks=policy.ranks,
            horizon=policy.horizon,
            seed=policy.seed,
            head="scalar",
        )
        self._loss = ValueLoss(clip=kind.value_clip)
        policy.hold("critic", self.trainer)

    def values(self, samples: Sequence[Sample]) -> Tensor:
        """Of the state before every response token of all samples, end to end."""
        return torch.cat(self.trainer.outputs(samples))

    def step(self, samples: Sequence[Sample]) -> StepStats:
        """One optimizer step towards the samples' returns."""
        return self.trainer.step(samples, self._loss)
