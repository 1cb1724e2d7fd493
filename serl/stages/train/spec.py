"""train: from the groups of a round to its policy; in round 0, from the corpus to the base model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from serl.config.base import LINEAR_LAYERS, Checkpoint, Scratch
from serl.config.engine import Engine, Sampling
from serl.config.objectives import (
    Correction,
    Critic,
    Imitation,
    MaxRl,
    Mean,
    Ppo,
    ReinforcePP,
    Rloo,
    TrainObjective,
    Vine,
    learns_from,
    needs_scalar,
    own_mean,
)
from serl.config.rewards import ProposerReward, Scrl
from serl.config.run import RunConfig
from serl.config.schema import Count, Fraction, Natural, Positive, Section
from serl.config.training import Training
from serl.engines.hf_folder import block_layers, model_folder, validate_targets
from serl.rewards.outside import Outside
from serl.rewards.spec import Majority, ModelReward, PythonReward, Reward, judges, needs_gold, parts
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, POLICY, Bounds, Kind, Stage, StageSection, World
from serl.stages.sources import Labelled, has_gold
from serl.text.problems import check_source, source_files

CRITIC = "critic"  # its folder, within that of the policy
POLICY_BYTES = 4  # per parameter: published in float32
POLICY_MORE = 2**20, 0.02  # tokenizer and configuration, and what a count from the architecture leaves out
POLICY_FILE_BYTES = 4 * 10**9  # transformers begins a new file before 5 GB
CHECKPOINT_BYTES = 12  # per parameter: float32 master and two Adam moments


class Proposer(Section):
    """The policy writes a turn's questions, too, and may be trained on how the answers to them came out.

    A turn's `prompts` questions are the proposals of prompts / proposals generation prompts, of seed problems
    each; those of one prompt are a group.
    """

    reward: ProposerReward | None = Field(default=None, description="null: it writes, and does not learn to")
    proposals: Annotated[int, Field(ge=2)] = Field(default=4, description="of each generation prompt")
    shots: Count = Field(default=3, description="seed problems in a generation prompt")
    kept_shots: Natural = Field(
        default=0, description="and questions of turns before that passed the difficulty filter"
    )
    max_tokens: Count = Field(description="of a proposal, which is one line")
    max_rouge_l: Fraction = Field(
        default=0.7, description="a proposal nearer to a seed, or to one before it in its turn, is not valid"
    )
    every: Count = Field(default=1, description="proposals are trained on in every so many turns")

    @property
    def learns(self) -> bool:
        return self.reward is not None


class Rollout(Section):
    """A training that samples for itself, in turns: answers of the present weights, some optimizer steps on
    them, the new weights into the engine, and the next turn.
    """

    prompts: Count = Field(description="groups that a turn trains on")
    samples: Annotated[int, Field(ge=2)] = 16
    votes: Count | None = Field(
        default=None,
        description="answers that are sampled and vote, of which the first `samples` are trained on (TTRL); "
        "null: those alone",
    )
    sampling: Sampling
    reward: Reward = Majority()
    vote: Literal["fresh", "array"] = Field(
        default="fresh",
        description="array: an answer earns 1 if it equals the majority that the stage before found; fresh: "
        "the reward",
    )
    refill: bool = Field(
        default=False,
        description="ask on until `prompts` groups lie in the band of `agreement`, or `max_asked` is reached",
    )
    max_asked: Count | None = Field(
        default=None, description="questions of a turn at most; null: four times `prompts` with refill"
    )
    turns: Count | None = Field(default=None, description="null: as many as ask every question once")
    publish_every: Count | None = Field(
        default=None,
        description="turns from one publication of the weights along the way to the next: the scoring stages "
        "after it look at each while training goes on; null: only at the end",
    )
    problems: Labelled | None = Field(
        default=None, description="where questions come from when no stage of the round brings any"
    )
    proposer: Proposer | None = Field(
        default=None, description="the policy writes the questions itself, and learns to; needs `turns`"
    )
    limit_s: Positive = Field(
        default=5.0, description="time limit of one answer's parsing or comparison, seconds"
    )
    engine: Engine | None = Field(default=None, description="where it is not to be the run's")

    @property
    def milestones(self) -> tuple[int, ...]:
        """The turns after which the weights are published along the way; after the last they are anyway."""
        every = self.publish_every
        return tuple(range(every, self.turns or 0, every)) if every else ()

    @property
    def answers(self) -> int:
        """Sampled of each question."""
        return self.votes or self.samples

    @property
    def most_asked(self) -> int:
        """Questions of a turn at most."""
        return self.max_asked or self.prompts * (4 if self.refill else 1)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.max_asked is not None and self.max_asked < self.prompts:
            raise ValueError(
                f"max_asked {self.max_asked}: less than prompts {self.prompts}; ask at least for those"
            )
        if self.votes is not None and (self.votes < self.samples or self.vote == "array"):
            raise ValueError(
                f"votes {self.votes}: at least samples {self.samples}, and with vote: fresh, where a turn's "
                "own answers vote; or null"
            )
        if self.proposer is not None:
            self._fits(self.proposer)
        return self

    @model_validator(mode="after")
    def _something_along_the_way(self) -> Self:
        every = self.publish_every
        if every is not None and self.turns is None:
            raise ValueError(
                f"publish_every {every}: how many turns there are is only known with turns; set that, or "
                "leave publish_every out"
            )
        if every is not None and not self.milestones:
            raise ValueError(
                f"publish_every {every}: nothing would be published along the way of {self.turns} turns; use "
                f"less than {self.turns}, or leave it out"
            )
        return self


    def _fits(self, proposer: Proposer) -> None:
        if self.prompts % proposer.proposals:
            raise ValueError(
                f"prompts {self.prompts}: no multiple of proposer.proposals {proposer.proposals}, which each "
                "generation prompt gives"
            )
        if self.turns is None:
            raise ValueError("turns: say how many; a proposer never runs out of questions")
        if self.refill:
            raise ValueError("refill: a turn asks what was proposed in it, once; take refill away")


class Train(Training, StageSection):
    """Learning from groups of answers whose rewards are informative, from pairs, or from chosen answers."""

    former: ClassVar = {
        "importance_cap": "write correction: {high: CAP}, or correction: {mode: none} for null"
    }

    role: str = Field(default=POLICY, description="whose weights move")
    init: str = Field(
        default="previous",
        description="where they start: previous (as the role's last training left them), base, or another "
        "role",
    )
    data: str | None = Field(
        default=None,
        description="the stage whose groups, pairs or answers are learned from; null: the nearest before",
    )
    objective: TrainObjective
    rollout: Rollout | None = Field(
        default=None,
        description="sample along the way; null: learn from the answers that a stage before has sampled",
    )
    agreement: tuple[Fraction, Fraction] = Field(
        default=(0.2, 0.8), description="keep a group iff low <= share of rewarded answers <= high"
    )
    batch_samples: Count = Field(default=16, description="completions in one optimizer step, over all ranks")
    max_steps: Count | None = Field(
        default=None, description="stop the round after this many optimizer steps"
    )
    loss_mean: Mean | None = Field(
        default=None, description="null: the objective's own, and over tokens where it has none"
    )
    reference: Literal["base", "previous"] = Field(
        default="base", description="whose log-probabilities the KL, or a preference, is measured against"
    )
    correction: Correction = Field(
        default=Correction(), description="of the difference between vLLM's numerics and the trainer's"
    )

    def max_groups(self, answers: int) -> int | None:
        """How many groups of so many answers `max_steps` steps learn from, each whole, so that baselines and
        normalisation see what is trained on.
        """
        steps = self.max_steps
        return None if steps is None else max(1, steps * self.batch_samples // (self.epochs * answers))

    @model_validator(mode="after")
    def _some_kl(self) -> Self:
        in_reward = isinstance(self.objective, ReinforcePP | Rloo)
        if self.rollout is None and self.reference == "previous" and in_reward and self.objective.kl > 0:
            raise ValueError(
                "reference previous: a round's answers come from the policy before it, so that the KL in "
                "their "
                f"reward ({self.objective.kind}) would always be 0; use reference: base, objective.kl: 0, "
                "or grpo, "
                "whose KL is in the loss"
            )
        return self

    @model_validator(mode="after")
    def _someone_samples(self) -> Self:
        if not isinstance(self.objective, Vine | Ppo):
            return self
        if self.rollout is None:
            raise ValueError(
                f"objective {self.objective.kind}: it values answers under the weights that gave them, "
                "turn by turn; give `rollout`"
            )
        if self.rollout.proposer is not None:
            raise ValueError(
                f"objective {self.objective.kind}: it values tokens of answers, and no proposals; use "
                "another objective, or no proposer"
            )
        return self

    @model_validator(mode="after")
    def _nothing_below_zero(self) -> Self:
        how = self.rollout
        if how is None or not isinstance(self.objective, MaxRl):
            return self
        if any(isinstance(part, Scrl) for part in parts(how.reward)):
            raise ValueError("rollout.reward.kind scrl: max_rl needs rewards from 0 up; choose another")
        if how.proposer and how.proposer.reward and how.proposer.reward.invalid < 0:
            raise ValueError(
                f"rollout.proposer.reward.invalid {how.proposer.reward.invalid:g}: max_rl needs rewards from "
                "0 up; set it to 0, or use another objective"
            )
        return self

    @model_validator(mode="after")
    def _offline(self) -> Self:
        """What pairs and chosen answers leave no room for."""
        learned = learns_from(self.objective)
        if learned != "groups" and self.rollout is not None:
            raise ValueError(
                f"rollout: {self.objective.kind} learns from {learned} that a stage before has chosen, and "
                "samples nothing; take rollout away, or choose an objective of groups"
            )
        if learned == "pairs" and self.batch_samples % 2:
            raise ValueError(f"batch_samples {self.batch_samples}: a pair is two answers; use an even number")
        if isinstance(self.objective, Imitation) and self.objective.prompt_weight:
            raise ValueError(
                f"objective.prompt_weight {self.objective.prompt_weight:g}: of chosen answers only the "
                "answers are learned; use 0"
            )
        if needs_scalar(self.objective) and self.role == POLICY:
            raise ValueError(
                f"role {POLICY}: {self.objective.kind} trains a head of one number a text, which cannot "
                "answer; give it a role of its own, like role: reward"
            )
        return self

    @model_validator(mode="after")
    def _one_mean(self) -> Self:
        own = own_mean(self.objective)
        if self.loss_mean is not None and own not in (None, self.loss_mean):
            raise ValueError(
                f"loss_mean {self.loss_mean}: {self.objective.kind} weighs by {own} itself; take loss_mean "
                "away"
            )
        return self

    @field_validator("agreement")
    @classmethod
    def _band(cls, agreement: tuple[float, float]) -> tuple[float, float]:
        if agreement[0] > agreement[1]:
            raise ValueError(f"{list(agreement)}: the low bound is above the high bound")
        return agreement


class TrainKind(Kind):
    section = Train
    gives = "weights"
    engine = "deepspeed"
    signals = ("idle",)
    files = 16

    def base_section(self, base: Section) -> Section | None:
        return base.train if isinstance(base, Scratch) else None

    def role(self, section: Section) -> str | None:
        return section.role if isinstance(section, Train) else POLICY

    def milestones(self, section: Section) -> tuple[int, ...]:
        how = section.rollout if isinstance(section, Train) else None
        return how.milestones if how else ()

    def weights(self, section: Section) -> Mapping[str, str]:
        critic = _critic(section)
        return super().weights(section) | ({critic.role: CRITIC} if critic else {})

    def uses(self, section: Train) -> tuple[str, ...]:
        if not isinstance(section, Train):
            return ()
        judging = judges(section.rollout.reward) if section.rollout else ()
        own = () if section.init in ("previous", "base") else (section.init,)
        critic = _critic(section)
        begun = (critic.init,) if critic and critic.init != POLICY else ()
        return (*own, *begun, *judging)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        """What it learns from, the models that it uses, and the weights that it starts from, where nothing
        that it reads waits for them.
        """
        data = self.data(stage, config)
        if not isinstance(stage.section, Train):
            return (data,) if data else ()
        waited = data is not None and data.gives == "groups"
        roles = (() if waited else (stage.section.role,)) + self.uses(stage.section)
        found = (data, *(config.trained(stage, role) for role in roles))
        return tuple({s.job: s for s in found if s}.values())

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        """The stage that it learns from: documents, what its objective needs, or, where it samples for
        itself, just questions.
        """
        section = stage.section
        if not isinstance(section, Train):
            return config.source(stage, "documents")
        found = config.source(stage, learns_from(section.objective), section.data)
        if found or section.rollout is None:
            return found
        return config.source(stage, "problems", section.data)

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        section = stage.section
        how = section.rollout
        if how and sum(x is not None for x in (how.problems, how.proposer, self.data(stage, config))) != 1:
            yield (
                ".rollout.problems: give it if and only if no stage of the round brings questions "
                "(like propose and curate, or respond), and no proposer writes them"
            )
        gold = how is not None and how.problems is not None and has_gold(how.problems.source)
        if how and (how.problems or how.proposer) and needs_gold(how.reward) and not gold:
            yield f".rollout.reward.kind {how.reward.kind} needs rollout.problems with a gold field"
        if how and how.proposer and config.seeds is None:
            yield ".rollout.proposer: needs seed problems as shots; give a source under `seeds`"
        if how is None and self.data(stage, config) is None:
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
        if (critic := _critic(section)) and critic.role == section.role:
            yield f".objective.critic.role {critic.role}: that is whose weights the policy moves; use another"
        if critic and critic.init != POLICY and config.trained(stage, critic.init) is None:
            yield (
                f".objective.critic.init {critic.init}: no stage before it trains that role; use "
                f"{POLICY}, or a role that is trained"
            )
        yield from self._sampling_problems(stage, config)
        yield from self._milestone_problems(stage, config)
        first = section.role if section.init == "previous" else section.init
        start = config.trained(stage, first)
        if start and _scalar(start, first) and not needs_scalar(section.objective):
            yield (
                f".init {section.init}: {start.name} gives the role {first} a head of one number a "
                f"text, which {section.objective.kind} cannot go on with; start from base or a role that "
                "answers"
            )
        yield from self._carry_problems(stage, config)
        yield from self._lora_problems(stage, config)
        if (start := section.init) not in ("previous", "base") and config.trained(stage, start) is None:
            yield (
                f".init {start}: no stage before it trains that role; use previous, base or a role that "
                "is trained"
            )

    def _milestone_problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        """What nobody looks at need not be published."""
        along = config.milestones(stage)
        if along and not any(along[0] in s.kind.reads(s, config) for s in config.at(stage.round)):
            yield (
                f".rollout.publish_every {stage.section.rollout.publish_every}: no stage after it in the "
                f"round examines the role {stage.role}; list one that does, like score, or leave it out"
            )

    def _carry_problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
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

    def _lora_problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
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

    def _sampling_problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        """Log-probabilities of the trainer are of the whole distribution at one temperature: so must be the
        sampler's.
        """
        how, data = stage.section.rollout, self.data(stage, config)
        if how:
            key, sampling = ".rollout.sampling", how.sampling
            if how.vote == "array" and (data is None or data.gives != "groups"):
                yield (
                    ".rollout.vote array: no stage of the round has voted; list one that does, like "
                    "respond, or use fresh"
                )
            if how.sampling.temperature == 0.0:
                yield (
                    ".rollout.sampling.temperature 0: equal answers make no vote; use a positive temperature"
                )
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

    def held(self, section: Section, config: RunConfig) -> Engine:
        how = section.rollout if isinstance(section, Train) else None
        return how.engine if how and how.engine else config.engine

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        how = stage.section.rollout if isinstance(stage.section, Train) else None
        if how and how.problems:
            check_source(how.problems.source, data, {}, config.answers)
        if how and how.proposer:
            wanted = {f"{stage.name}.rollout.proposer.shots": how.proposer.shots}
            check_source(config.seeds, data, wanted, config.answers)
        lora = stage.section.lora
        if lora and isinstance(config.base, Checkpoint):
            if known := block_layers(model_folder(config.base.path, data)):
                validate_targets(lora.targets or (), known)
        for part in parts(how.reward) if how else ():
            if isinstance(part, PythonReward):
                Outside(part).check()

    def watched(self, stage: Stage, config: RunConfig) -> bool:
        return stage.section.rollout is not None or super().watched(stage, config)

    def num_questions(self, stage: Stage, config: RunConfig) -> int:
        """That a training which samples for itself has to ask, at most."""
        how, data = stage.section.rollout, self.data(stage, config)
        if how.proposer:
            return how.prompts * how.turns
        if data is None:
            return how.problems.per_round
        return (
            data.section.max_instructions
            if data.gives == "problems"
            else data.kind.num_questions(data, config)
        )

    def num_turns(self, stage: Stage, config: RunConfig) -> int:
        how = stage.section.rollout
        return how.turns or -(-self.num_questions(stage, config) // how.prompts)

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        more, share = POLICY_MORE
        num_weights = world.num_parameters * (1 + bool(_critic(stage.section)))
        lasting = int(more + (1 + share) * num_weights * POLICY_BYTES)
        files = self.files + lasting // POLICY_FILE_BYTES
        if stage.milestone:
            return Bounds(files=files, bytes=lasting)
        tokens = branched = 0
        if isinstance(stage.section, Train) and (how := stage.section.rollout):
            turns, longest = self.num_turns(stage, config), how.sampling.max_tokens
            tokens = turns * how.most_asked * how.answers * longest
            tokens += turns * how.prompts * how.proposer.max_tokens if how.proposer else 0
            if isinstance(vine := stage.section.objective, Vine):
                branched = turns * how.prompts * how.samples * vine.most_tokens(longest)
        sampled = tokens * BYTES_PER_SAMPLED_TOKEN
        temporary = num_weights * CHECKPOINT_BYTES * (stage.section.keep_checkpoints + 1)
        return Bounds(
            tokens=tokens + branched,
            files=files + bool(tokens),
            bytes=lasting + sampled,
            temporary_bytes=temporary + sampled,
        )

    def kept_bytes(
        self, stage: Stage, config: RunConfig, world: World, ranks: int, *, gpu: bool
    ) -> Mapping[str, int]:
        section = stage.section
        own = int(world.num_parameters * section.kept_bytes(ranks, gpu=gpu))
        if not isinstance(section, Train):
            return {"policy": own}
        frozen = world.num_parameters * (2 if gpu else 4) // (ranks if section.zero == 3 else 1)
        critic = {"critic": own} if _critic(section) else {}
        return {"policy": own} | critic | ({"reference": frozen} if section.objective.kl else {})

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        how = stage.section.rollout if isinstance(stage.section, Train) else None
        if how and how.proposer:
            return source_files(config.seeds, data)
        return source_files(how.problems.source, data) if how and how.problems else {}

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        base = config.base
        seed = base.seed if isinstance(base, Scratch) and stage.round == 0 else None
        asked = stage.section.rollout if isinstance(stage.section, Train) else None
        how = {"prompts": config.prompts, "answers": config.answers.model_dump()} if asked else {}
        if asked and asked.proposer:
            how |= {"seeds": config.seeds, "quality": config.quality}
        return how | {"seed": config.seed if seed is None else seed, "base": base, "section": stage.section}


def _scalar(training: Stage, role: str) -> bool:
    """Whether a training gives a role a head of one number a text."""
    section = training.section
    return isinstance(section, Train) and (needs_scalar(section.objective) or role != section.role)


def _critic(section: Section) -> Critic | None:
    """Who is trained beside the policy."""
    objective = section.objective if isinstance(section, Train) else None
    return objective.critic if isinstance(objective, Ppo) else None


KIND = TrainKind()
