"""What a training step minimises, as configuration: one section per method, with the constants of its paper.

A section is the whole method: advantages, loss, where its KL sits and what its loss is a mean of.
`serl.learning.algorithms` reads them.
"""

import math
import re
from typing import Annotated, Literal, Self, assert_never

from pydantic import Field, field_validator, model_validator

from serl.config.schema import Count, Fraction, Positive, Section

NonNegative = Annotated[float, Field(ge=0.0)]


class Clipped(Section):
    """The clip of PPO's probability ratio (arXiv 1707.06347, eq. 7): to [1 - clip, 1 + clip_high]."""

    clip: Positive = 0.2
    clip_high: Positive | None = Field(
        default=None, description="how far the ratio may rise (DAPO's clip-higher); null: as far as `clip`"
    )
    dual_clip: Annotated[float, Field(gt=1.0)] | None = Field(
        default=None,
        description="bounds the loss of a bad token at this ratio (arXiv 1912.09729 uses 3); null: no bound",
    )
    entropy: NonNegative = Field(
        default=0.0, description="weight of a bonus for the entropy of the next token (arXiv 1602.01783)"
    )


class ReinforcePP(Clipped):
    """REINFORCE++ (arXiv 2501.03262): k1 KL in the token reward, returns whitened over the round."""

    kind: Literal["reinforce_pp"] = "reinforce_pp"
    kl: NonNegative = Field(default=1e-3, description="weight of log p - log p_ref in the token reward")


class Rloo(Clipped):
    """RLOO (arXiv 2402.14740): leave-one-out baseline, k1 KL in the reward, whitened over the round."""

    kind: Literal["rloo"] = "rloo"
    kl: NonNegative = 1e-3


class Grpo(Clipped):
    """GRPO (arXiv 2402.03300): rewards standardised within the group, k3 KL in the loss."""

    kind: Literal["grpo"] = "grpo"
    kl: NonNegative = 1e-3


class ReinforcePPBaseline(Clipped):
    """REINFORCE++-baseline (arXiv 2501.03262): rewards minus their group's mean, whitened over the round.

    Its KL is in the loss, as k2.
    """

    kind: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"
    kl: NonNegative = 1e-3


class DrGrpo(Clipped):
    """Dr. GRPO (arXiv 2503.20783): rewards minus their group's mean, and a loss without length bias.

    Tokens are summed and divided by `longest` times the number of answers.
    """

    kind: Literal["dr_grpo"] = "dr_grpo"
    kl: NonNegative = 0.0
    longest: Count = Field(description="the constant normaliser: tokens that an answer may have")


class Overlong(Section):
    """DAPO's soft punishment (arXiv 2503.14476, eq. 13) of answers that come near the limit.

    0 up to longest - buffer tokens, then falling to -penalty at `longest`.
    """

    longest: Count = Field(description="tokens that an answer may have")
    buffer: Count = Field(description="how many of them, at the end, cost something")
    penalty: Positive = 1.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.buffer > self.longest:
            raise ValueError(f"buffer {self.buffer} is longer than the longest answer, {self.longest} tokens")
        return self


class Dapo(Clipped):
    """DAPO (arXiv 2503.14476): GRPO's advantage, clip-higher, mean over the batch's tokens, no KL."""

    kind: Literal["dapo"] = "dapo"
    clip_high: Positive | None = 0.28
    kl: NonNegative = 0.0
    overlong: Overlong | None = Field(default=None, description="null: long answers cost nothing")


class Gspo(Clipped):
    """GSPO (arXiv 2507.18071): GRPO's advantage, and one ratio per sequence.

    That is the geometric mean of its tokens'. The loss is a mean over sequences.
    """

    kind: Literal["gspo"] = "gspo"
    clip: Positive = 3e-4
    clip_high: Positive | None = 4e-4
    kl: NonNegative = 0.0


class Cispo(Section):
    """CISPO (arXiv 2506.13585, eq. 4): GRPO's advantage times a capped ratio that is not differentiated.

    No token is dropped; the loss is a mean over tokens.
    """

    kind: Literal["cispo"] = "cispo"
    cap: Positive = Field(default=5.0, description="the ratio's upper bound; the paper sets no lower one")
    kl: NonNegative = 0.0


class MaxRl(Clipped):
    """MaxRL (arXiv 2602.02710): (reward - mean) / mean of the group; rarely solved prompts weigh most."""

    kind: Literal["max_rl"] = "max_rl"
    kl: NonNegative = 0.0


class Steps(Section):
    """Where an answer's steps end, told from its tokens; a step that is blank or too short joins another."""

    min_tokens: Count = Field(default=1, description="tokens of a step at least")
    most: Count = Field(
        default=100, description="steps of an answer at most; the last of them has all that follows"
    )

    def most_states(self, longest: int) -> int:
        """Before whose steps an answer of so many tokens is valued at most."""
        return min(self.most, max(1, longest // self.min_tokens))


class Lines(Steps):
    """A step is a line."""

    kind: Literal["lines"] = "lines"


class Sentences(Steps):
    """A step is a sentence, a line, or what ends in a displayed formula; formulas are not looked into."""

    kind: Literal["sentences"] = "sentences"


class Pattern(Steps):
    """A step ends where the regular expression has matched."""

    kind: Literal["pattern"] = "pattern"
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _finds_something(cls, pattern: str) -> str:
        try:
            empty = re.search(pattern, "") is not None
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if empty:
            raise ValueError(
                f"{pattern!r} matches the empty text, so that every token would end a step; "
                "write what stands at a step's end"
            )
        return pattern


Splitter = Annotated[Lines | Sentences | Pattern, Field(discriminator="kind")]


def rollout_tokens(steps: Steps, rollouts: int, longest: int) -> int:
    """That are sampled on from one answer at most: each of its states leaves `longest` less its own."""
    states = steps.most_states(longest)
    return rollouts * (states * longest - steps.min_tokens * states * (states - 1) // 2)


class Vine(Clipped):
    """VinePPO (arXiv 2410.01679): the value of an answer's step is the mean reward of rollouts from there on.

    A step's advantage is what it adds to the value; advantages are whitened over the turn, and the KL is in
    the loss, as k3.
    """

    kind: Literal["vine_ppo"] = "vine_ppo"
    steps: Splitter = Sentences()
    rollouts: Count = Field(default=9, description="from the beginning of each step")
    whiten: bool = Field(default=True, description="advantages to mean 0 and variance 1 over the whole turn")
    kl: NonNegative = 1e-4

    def most_tokens(self, longest: int) -> int:
        """That are sampled on from one answer at most."""
        return rollout_tokens(self.steps, self.rollouts, longest)


class AdaptiveKl(Section):
    """A KL weight that follows a target (arXiv 1909.08593, section 2.2)."""

    target: Positive = Field(default=6.0, description="nats per answer")
    horizon: Count = Field(
        default=10_000, description="answers over which an error of 0.1 moves the weight by a tenth"
    )


class Critic(Section):
    """Who values the states of answers: a model of its own with a scalar head, trained beside the policy."""

    role: str = Field(default="critic", description="the name under which it is published with the policy")
    init: str = Field(
        default="policy",
        description="what it starts from where no training before has one of its role: policy (the weights "
        "that the policy starts from), or a role, like a reward model",
    )
    lr: Positive | None = Field(default=None, description="null: the policy's")


class Ppo(Clipped):
    """PPO with a critic (arXiv 1707.06347): generalised advantages, clipped value loss."""

    kind: Literal["ppo"] = "ppo"
    critic: Critic = Critic()
    gamma: Fraction = 1.0
    lam: Fraction = Field(default=1.0, description="lambda of the generalised advantage (arXiv 1506.02438)")
    value_clip: Positive | None = Field(
        default=0.2, description="how far a value may move from its old one; null: free"
    )
    whiten: bool = Field(default=True, description="advantages to mean 0 and variance 1 over the whole turn")
    kl: NonNegative = 1e-3
    kl_in: Literal["reward", "loss"] = "reward"
    kl_estimate: Literal["k1", "k2", "k3"] = "k1"
    adaptive: AdaptiveKl | None = Field(default=None, description="null: `kl` stays as it is")

    @model_validator(mode="after")
    def _kl_has_a_gradient(self) -> Self:
        if self.kl_in == "loss" and self.kl_estimate == "k1" and self.kl > 0:
            raise ValueError(
                "kl_estimate k1 in the loss has a gradient of mean 0, so that nothing would hold the policy"
                " (arXiv 2506.09477); use k2 or k3, or kl_in: reward"
            )
        if self.adaptive is not None and self.kl == 0:
            raise ValueError(
                "kl 0 stays 0 whatever `adaptive` multiplies it by; give kl a first value above 0"
            )
        return self


class Imitation(Section):
    """Next-token cross-entropy on documents or answers; `prompt_weight` scales the loss on prompt tokens."""

    kind: Literal["imitation"] = "imitation"
    prompt_weight: Fraction = 0.0


class BradleyTerry(Section):
    """A reward model from pairs: -log sigmoid(score of the better - score of the worse)."""

    kind: Literal["bradley_terry"] = "bradley_terry"
    centre: NonNegative = Field(
        default=0.0,
        description="weight of (sum of both scores)^2, which keeps them around 0 (arXiv 2312.09244: 0.01)",
    )


class Forecast(Section):
    """A scalar head as a probability: cross-entropy of sigmoid(score) with labels anywhere in [0, 1]."""

    kind: Literal["forecast"] = "forecast"


class Dpo(Section):
    """DPO (arXiv 2305.18290, eq. 7); with `positive` above 0, DPO-positive (arXiv 2402.13228; 50 there)."""

    kind: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    positive: NonNegative = Field(
        default=0.0, description="weight of what the better answer has lost against the reference"
    )


class ImplicitReward(Section):
    """Free process rewards (arXiv 2412.01981): beta log(p / p_ref), trained as an answer's reward.

    KTO's anchor is 0, as in APO-zero (arXiv 2408.06266): it depends on no other answers of a batch.
    """

    kind: Literal["implicit_reward"] = "implicit_reward"
    form: Literal["cross_entropy", "nca", "kto"] = Field(
        default="cross_entropy", description="nca reads pairs, the others all answers with what they earned"
    )
    beta: Positive = 0.05


class Correction(Section):
    """What a token's advantage is weighed with, as the sampling engine's numerics are not the trainer's.

    w = p_trainer / p_sampler, within bounds. Those that are not given are the field's for this level and
    mode, see `FIELD_BOUNDS`; `low: 0` is no lower bound.
    """

    level: Literal["token", "sequence", "geometric"] = Field(
        default="token",
        description="w of each token; or of its sequence, as a product or as a geometric mean",
    )
    mode: Literal["truncate", "mask", "none"] = Field(
        default="truncate", description="outside its bounds, w becomes the bound, or 0; none: w is 1"
    )
    low: NonNegative | None = None
    high: Positive | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest w that stay as they are."""
        if self.mode == "none":
            return 0.0, math.inf
        low, high = FIELD_BOUNDS[self.level, self.mode]
        return low if self.low is None else self.low, high if self.high is None else self.high

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.mode == "none" and (self.low, self.high) != (None, None):
            raise ValueError("mode none: no weight, hence no bounds; take low and high away")
        low, high = self.bounds
        if low > 1 or high < 1:
            raise ValueError(
                f"bounds [{low:g}, {high:g}] leave out 1, where engines agree; use low <= 1 <= high"
            )
        return self


# Truncated importance sampling as in verl; IcePop as in OpenRLHF; TRL's default, sequence_mask; the geometric
# mask of NVIDIA's labs-molt.
FIELD_BOUNDS: dict[tuple[str, str], tuple[float, float]] = {
    ("token", "truncate"): (0.0, 2.0),
    ("token", "mask"): (0.5, 5.0),
    ("sequence", "truncate"): (0.0, 2.0),
    ("sequence", "mask"): (0.0, 3.0),
    ("geometric", "truncate"): (0.0, 2.0),
    ("geometric", "mask"): (0.99, 1.01),
}

GroupObjective = ReinforcePP | Rloo | Grpo | ReinforcePPBaseline | DrGrpo | Dapo | Gspo | Cispo | MaxRl
Trained = GroupObjective | Vine | Ppo | Imitation | BradleyTerry | Dpo | ImplicitReward  # of a kind of stage
Mean = Literal["token", "sequence"]
Learned = Literal["groups", "pairs", "answers"]


def own_mean(objective: Trained) -> Mean | None:
    """What the loss is a mean of where the method says so itself; None: it is the user's choice.

    Dr. GRPO's sum over tokens is divided by a constant: each of them weighs 1, as in a mean over tokens.
    """
    match objective:
        case Dapo() | Cispo() | DrGrpo():
            return "token"
        case Gspo() | BradleyTerry() | Dpo() | ImplicitReward():
            return "sequence"
        case ReinforcePP() | Rloo() | Grpo() | ReinforcePPBaseline() | MaxRl() | Vine() | Ppo() | Imitation():
            return None
        case _:
            assert_never(objective)


def learns_from(objective: Trained) -> Learned:
    """The records that an objective needs."""
    match objective:
        case Imitation():
            return "answers"
        case BradleyTerry() | Dpo() | ImplicitReward(form="nca"):
            return "pairs"
        case _:
            return "groups"


def samples_nothing(objective: Trained) -> bool:
    """Whether it learns from stored answers alone, whatever policy gave them."""
    return learns_from(objective) != "groups" or isinstance(objective, ImplicitReward)


def needs_scalar(objective: Trained) -> bool:
    """Whether it trains a head of one number a text, which cannot speak."""
    return isinstance(objective, BradleyTerry)


def has_reference(objective: Trained) -> bool:
    """Whether what is minimised depends on another policy's log-probabilities."""
    match objective:
        case Imitation() | BradleyTerry():
            return False
        case Dpo() | ImplicitReward():
            return True
        case _:
            return objective.kl > 0


TrainObjective = Annotated[Trained, Field(discriminator="kind")]
Objective = Annotated[
    Trained | Forecast,
    Field(discriminator="kind"),
]
