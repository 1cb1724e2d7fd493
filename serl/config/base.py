"""What a run starts from: a model folder, or a tiny model that it makes itself from a generated corpus."""

from typing import Annotated, Literal

from pydantic import Field

from serl.config.schema import Count, Fraction, Natural, Positive, Section, Seed
from serl.config.training import Pretrain

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of which vLLM has kernels


class Checkpoint(Section):
    """A Hugging Face model folder: policy 0 as it is."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: str = Field(description="folder, absolute or relative to <data root>/models")


LINEAR_LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")  # of a Llama


class Architecture(Section):
    """A small Llama made on the spot."""

    hidden: Count
    layers: Count
    heads: Count
    intermediate: Count
    max_positions: Count = 512
    vocabulary: Annotated[int, Field(ge=259)] = Field(
        default=512, description="tokens at most: 256 bytes, 3 special ones, and merges"
    )
    init_std: Positive = 0.06


class Corpus(Section):
    """Generated documents of a toy domain, its seeds, labelled problems and held-out benchmarks (see
    `serl.world`).
    """

    world: Literal["arithmetic", "things"] = "arithmetic"
    documents: Count
    list_share: Fraction = 0.08
    choice_share: Fraction = Field(default=0.05, description="multiple choice, in the world of arithmetic")
    steps_share: Fraction = Field(
        default=0.65, description="problems solved step by step rather than at a glance"
    )
    steps_share_expressions: Fraction = Field(
        default=0.35, description="the same of expressions, in the world of arithmetic"
    )
    seeds: Count = 100
    problems: Natural = Field(
        default=2000,
        description="labelled problems for the controls with verified reward; self-play never reads them",
    )
    test_problems: Count = 500
    choice_problems: Count = Field(default=200, description="in the world of arithmetic")
    validation_problems: Count = Field(
        default=100, description="other held-out problems, to choose rounds and settings by"
    )


class Scratch(Section):
    """A tiny base model trained in round 0: stages `corpus` and `train`."""

    kind: Literal["scratch"] = "scratch"
    seed: Seed | None = Field(default=None, description="seed of corpus and weights; null: the run's seed")
    architecture: Architecture
    corpus: Corpus
    train: Pretrain


BaseModelSpec = Annotated[Checkpoint | Scratch, Field(discriminator="kind")]
