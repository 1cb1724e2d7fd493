"""The section of a training, and what within it does not fit together."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

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
    samples_nothing,
)
from serl.config.rewards import ProposerReward, Scrl
from serl.config.schema import Count, Fraction, Natural, Positive, Section
from serl.config.training import Training
from serl.rewards.spec import Majority, Reward, parts
from serl.stages.kind import POLICY, StageSection
from serl.stages.sources import Labelled


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
        if samples_nothing(self.objective) and self.rollout is not None:
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


def critic_of(section: Section) -> Critic | None:
    """Who is trained beside the policy."""
    objective = section.objective if isinstance(section, Train) else None
    return objective.critic if isinstance(objective, Ppo) else None
