"""What of a training does not fit the run around it: the stages before it, its phase, and the base model."""

from collections.abc import Iterator

from serl.config.base import LINEAR_LAYERS, Scratch
from serl.config.objectives import Ppo, Vine, learns_from, needs_scalar
from serl.config.run import RunConfig
from serl.engines.hf_folder import validate_targets
from serl.rewards.spec import ModelReward, needs_gold, parts
from serl.stages.kind import POLICY, Stage
from serl.stages.sources import has_gold
from serl.stages.train.section import Train, critic_of


def misfits(stage: Stage, config: RunConfig, data: Stage | None) -> Iterator[str]:
    """Sentences, each beginning with a key of the stage; `data` is the stage that it learns from."""
    section = stage.section
    how = section.rollout
    if how and sum(x is not None for x in (how.problems, how.proposer, data)) != 1:
        yield (
            ".rollout.problems: give it if and only if no stage of the round brings questions "
            "(like propose and curate, or respond), and no proposer writes them"
        )
    gold = how is not None and how.problems is not None and has_gold(how.problems.source)
    if how and (how.problems or how.proposer) and needs_gold(how.reward) and not gold:
        yield f".rollout.reward.kind {how.reward.kind} needs rollout.problems with a gold field"
    if how and how.proposer and config.seeds is None:
        yield ".rollout.proposer: needs seed problems as shots; give a source under `seeds`"
    if how is None and data is None:
        learned = learns_from(section.objective)
        what = f".data {section.data}: no stage of that name" if section.data else ": no stage"
        example = "respond" if learned == "groups" else f"select, which chooses {learned}"
        yield f"{what} before it in the round writes {learned}; list one that does, like {example}"
    pairs = [p for p in parts(how.reward) if isinstance(p, ModelReward) and p.of == "pair"] if how else []
    if pairs and isinstance(section.objective, Vine):
        yield (
            f".rollout.reward.of pair: rollouts of one state win half of the pairs that they make; "
            f"{section.objective.kind} needs a reward of each answer: use of: answer"
        )
    if (critic := critic_of(section)) and critic.role == section.role:
        yield f".objective.critic.role {critic.role}: that is whose weights the policy moves; use another"
    if critic and critic.init != POLICY and config.trained(stage, critic.init) is None:
        yield (
            f".objective.critic.init {critic.init}: no stage before it trains that role; use "
            f"{POLICY}, or a role that is trained"
        )
    yield from _sampling_problems(stage, data)
    yield from _milestone_problems(stage, config)
    first = section.role if section.init == "previous" else section.init
    start = config.trained(stage, first)
    if start and _scalar(start, first) and not needs_scalar(section.objective):
        yield (
            f".init {section.init}: {start.name} gives the role {first} a head of one number a "
            f"text, which {section.objective.kind} cannot go on with; start from base or a role that "
            "answers"
        )
    yield from _carry_problems(stage, config)
    yield from _lora_problems(stage, config)
    if (start := section.init) not in ("previous", "base") and config.trained(stage, start) is None:
        yield (
            f".init {start}: no stage before it trains that role; use previous, base or a role that "
            "is trained"
        )


def _milestone_problems(stage: Stage, config: RunConfig) -> Iterator[str]:
    """What nobody looks at need not be published."""
    along = config.milestones(stage)
    if along and not any(along[0] in s.kind.reads(s, config) for s in config.at(stage.round)):
        yield (
            f".rollout.publish_every {stage.section.rollout.publish_every}: no stage after it in the "
            f"round examines the role {stage.role}; list one that does, like score, or leave it out"
        )


def _carry_problems(stage: Stage, config: RunConfig) -> Iterator[str]:
    """A schedule that goes on through a phase has to know from the first step how long it will be."""
    _, phase, _ = config.phase(stage.round) if stage.round else ("", None, 0)
    section = stage.section
    known = section.max_steps or (section.rollout and section.rollout.turns)
    if phase and phase.carry == "phase" and section.optimizer.schedule != "constant" and not known:
        yield (
            f".optimizer.schedule {section.optimizer.schedule}: carry: phase needs to know its length; "
            "set max_steps "
            "(or rollout.turns), or use schedule: constant"
        )


def _lora_problems(stage: Stage, config: RunConfig) -> Iterator[str]:
    lora = stage.section.lora
    if lora is None:
        return
    _, phase, _ = config.phase(stage.round) if stage.round else ("", None, 0)
    if phase and phase.carry == "phase":
        yield (
            ".lora: each round begins with new adapters, over the policy that the last ones were merged "
            "into, which no optimizer can be carried on to; use carry: round, or one round of more turns"
        )
    if isinstance(stage.section.objective, Ppo):
        yield ".lora: PPO's critic has a scalar head, which is trained whole; use another objective"
    if isinstance(config.base, Scratch):
        try:
            validate_targets(lora.targets or (), LINEAR_LAYERS)
        except ValueError as e:
            yield f".{e}"


def _sampling_problems(stage: Stage, data: Stage | None) -> Iterator[str]:
    """Log-probabilities of the trainer are of the whole distribution at one temperature: so must be the
    sampler's.
    """
    how = stage.section.rollout
    if how:
        key, sampling = ".rollout.sampling", how.sampling
        if how.vote == "array" and (data is None or data.gives != "groups"):
            yield (
                ".rollout.vote array: no stage of the round has voted; list one that does, like "
                "respond, or use fresh"
            )
        if how.sampling.temperature == 0.0:
            yield (".rollout.sampling.temperature 0: equal answers make no vote; use a positive temperature")
    elif data and data.gives == "groups":
        key, sampling = f": its answers are those of {data.name}, whose sampling", data.section.sampling
    else:
        return
    for name, off in (("top_p", 1.0), ("presence_penalty", 0.0)):
        if (value := getattr(sampling, name)) != off:
            yield (
                f"{key}.{name} {value:g}: what is trained on must be sampled from the policy itself, "
                "or the ratios of "
                f"the loss are wrong; use {off:g}"
            )


def _scalar(training: Stage, role: str) -> bool:
    """Whether a training gives a role a head of one number a text."""
    section = training.section
    return isinstance(section, Train) and (needs_scalar(section.objective) or role != section.role)
