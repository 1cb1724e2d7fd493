"""What self-play is watched for, as configuration: each rule compares a round with the run's own first one,
says how far is too far, and what happens then.
"""

from typing import Annotated, Literal

from pydantic import Field

from serl.config.schema import Fraction, Positive, Section

Action = Literal["stop", "hold", "warn", "ignore"]


class Rule(Section):
    """`stop` ends the run before it trains on, `hold` also keeps the job of a Slurm run in the queue, held,
    `warn` only says so, and `ignore` switches the rule off.
    """

    action: Action = "stop"


class Accuracy(Rule):
    """The votes on the anchors, whose answers are known, are right less often than in an earlier round."""

    p: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        default=0.01,
        description="fires below this p-value: exact, one-sided, paired by anchor, corrected for the number "
        "of earlier rounds",
    )


class Conviction(Rule):
    """The votes on the anchors have grown surer since the first round, and not more often right for it; or
    the right answers lead by less.

    Where the vote is wrong more often than right, agreement climbs on wrong answers. That shows here before
    accuracy has fallen by much.
    """

    p: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        default=0.01,
        description="fires if either change has a p-value below this: a one-sided z-test of the mean change, "
        "paired by anchor (20 at least)",
    )


class Silence(Rule):
    """Answers that cast no vote (none found, truncated, or not comparable in time) have become common."""

    rise: Fraction = Field(
        default=0.25, description="fires if their share is above the first round's by more than this"
    )


class Monotony(Rule):
    """Different questions get one and the same answer: the cheapest way to agree."""

    rise: Fraction = Field(
        default=0.25,
        description="fires if the share of questions with the commonest answer is above the first round's by "
        "more",
    )


class Entropy(Rule):
    """The answers to one question hardly differ any more: there is little left to vote on."""

    action: Action = "warn"
    factor: Fraction = Field(
        default=0.1,
        description="fires if the mean entropy of the votes is below this share of the first round's",
    )


class Length(Rule):
    """Answers have become much longer or shorter."""

    action: Action = "warn"
    factor: Annotated[float, Field(gt=1.0)] = Field(
        default=2.0, description="fires if the mean length grew or shrank by more than this factor"
    )


class Duplicates(Rule):
    """Self-instruction repeats itself: most of what it proposes is known."""

    action: Action = "warn"
    share: Positive = Field(
        default=0.9, description="fires if more than this share of the candidates are duplicates"
    )


class Mismatch(Rule):
    """The sampling engine gives its own tokens other probabilities than the trainer does: weights did not
    arrive, or one of the two computes another model.
    """

    limit: Positive = Field(
        default=0.1, description="fires above this KL (nats a token) from engine to trainer"
    )


class Drift(Rule):
    """The policy has gone far from the reference of its KL."""

    action: Action = "warn"
    limit: Positive = Field(
        default=1.0, description="fires above this KL (nats a token) from policy to reference"
    )


class Clipped(Rule):
    """Most of what a step would do is cut off by the clip, turn after turn: training stands still while it
    looks busy.
    """

    action: Action = "warn"
    share: Fraction = Field(default=0.5, description="fires if more than this share of tokens was clipped")
    turns: Annotated[int, Field(ge=1)] = Field(default=5, description="in so many turns one after the other")


class Safety(Section):
    """Looked at before each round's training, from the answers of the policy that it starts from. Round 1,
    the base model's, is what others are measured by; it raises no alarm itself. A training that samples for
    itself is looked at after each turn, too, its first turns being what later ones are measured by.
    """

    accuracy: Accuracy = Accuracy()
    conviction: Conviction = Conviction()
    silence: Silence = Silence()
    monotony: Monotony = Monotony()
    entropy: Entropy = Entropy()
    length: Length = Length()
    duplicates: Duplicates = Duplicates()
    mismatch: Mismatch = Mismatch()
    drift: Drift = Drift()
    clipped: Clipped = Clipped()
