"""What proposals, and answers without labels, earn beyond the majority's 0 or 1, as configuration."""

from typing import Annotated, Literal

from pydantic import Field

from serl.config.schema import Fraction, Section


class ClassShare(Section):
    """EMPO (arXiv 2504.05812), SRT's soft reward (arXiv 2505.21444): the share of answers that say the
    same.
    """

    kind: Literal["class_share"] = "class_share"


class Scrl(Section):
    """SCRL (arXiv 2603.19880): positive only for a clear winner, negative only for rare, doubtful answers.

    The defaults are the constants of the authors' runs.
    """

    kind: Literal["scrl"] = "scrl"
    positive: Fraction = Field(default=0.375, description="share of all answers that the winner needs")
    margin: Fraction = Field(
        default=0.125, description="lead over the runner-up that the winner needs more than"
    )
    negative: Fraction = Field(
        default=0.125, description="an answer with less than this share may be negative"
    )
    entropy: Annotated[float, Field(ge=0.0)] = Field(
        default=0.1, description="what a nat of entropy above the question's mean costs"
    )
    unreadable: float = Field(default=-1.0, description="the reward without an answer")


class Proposal(Section):
    """What a proposed question earns, by the share p of its answers that are right (or agree)."""

    invalid: float = Field(default=-1.0, description="what a proposal that is no question earns")


class Learnability(Proposal):
    """4p(1-p): 1 where half of the answers are right (prime-rl's proposer_solver)."""

    kind: Literal["learnability"] = "learnability"


class Difficulty(Proposal):
    """1 - p, as hard as can be solved (Absolute Zero, arXiv 2505.03335); `unsolved` where no answer is
    right.
    """

    kind: Literal["difficulty"] = "difficulty"
    unsolved: float = Field(default=0.0, description="0 in the paper, -0.5 in its code")


class Uncertainty(Proposal):
    """min(p, 1-p): as undecided as can be (R-Zero, arXiv 2508.05004: its code; the paper doubles it)."""

    kind: Literal["uncertainty"] = "uncertainty"


class Informative(Proposal):
    """1 where 0 < p < 1, else 0 (self-questioning language models, arXiv 2508.03682)."""

    kind: Literal["informative"] = "informative"
    invalid: float = Field(default=0.0, description="what a proposal that is no question earns")


ProposerReward = Annotated[Learnability | Difficulty | Uncertainty | Informative, Field(discriminator="kind")]
