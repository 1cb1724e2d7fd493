"""Where a training starts: its weights, the reference of its KL, and a look at the data before anything
moves.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from serl.config.objectives import Ppo, has_reference
from serl.engines.passes import frozen_logprobs
from serl.engines.ranks import Ranks
from serl.learning.batch import Sample
from serl.records import Group
from serl.safety.checkup import refusal
from serl.stages.kind import POLICY
from serl.stages.train.guard import check
from serl.stages.train.section import Train
from serl.stages.work import Work, policy_dir

Forward = Callable[[Sequence[Sample]], list[Tensor]]


def starting_weights(work: Work, settings: Train) -> tuple[Path, str]:
    """The weights that are trained on, and their digest."""
    match settings.init:
        case "previous":
            return work.weights(settings.role)
        case "base":
            return policy_dir(work.run, 0)
        case role:
            return work.weights(role)


def critic_weights(work: Work, settings: Train) -> tuple[Path, str]:
    """The weights that the critic starts from, and their digest; its own, where a training left any."""
    assert isinstance(settings.objective, Ppo), "only PPO has a critic"
    critic = settings.objective.critic
    if work.run.config.trained(work.stage, critic.role):
        return work.weights(critic.role)
    return starting_weights(work, settings) if critic.init == POLICY else work.weights(critic.init)


def starts_from_base(work: Work, settings: Train) -> bool:
    before = work.run.config.trained(work.stage, settings.role)
    return settings.init == "base" or (settings.init == "previous" and not (before and before.round))


def reference(work: Work, ranks: Ranks, temperature: float, *, moving: bool) -> Forward | None:
    """Whose log-probabilities the KL, or a preference, is measured against; None where nothing is, or it is
    the policy itself.

    `moving`: answers come from the policy as it is trained, so that the one from the start is another than
    it.
    """
    settings = work.stage.section
    from_start = settings.reference == "previous" or starts_from_base(work, settings)
    if not has_reference(settings.objective) or (from_start and not moving):
        return None
    folder, _ = starting_weights(work, settings) if from_start else policy_dir(work.run, 0)
    return frozen_logprobs(folder, settings, ranks=ranks, temperature=temperature)


def look_first(work: Work, ranks: Ranks, groups: Sequence[Group]) -> None:
    """Raise Unsafe, on every rank alike, where the round's data says that the policy to train on has
    collapsed.
    """
    unsafe = None
    if ranks.first:
        checkup = check(work.run, work.shard.round, groups)
        for alarm in checkup.alarms:
            work.events.add("alarm", rule=alarm.rule, action=alarm.action, sentence=alarm.sentence)
        unsafe = refusal(work.run, checkup)
    if unsafe := ranks.from_first(unsafe):
        raise unsafe
