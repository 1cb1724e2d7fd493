"""How weights are updated, as configuration: objectives, the optimizer, and the two kinds of training."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from serl.config.schema import Count, Fraction, Positive, Section

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class ReinforcePP(Section):
    """REINFORCE++ (arXiv 2501.03262): k1 KL in the token reward, returns whitened over the round."""

    kind: Literal["reinforce_pp"] = "reinforce_pp"
    kl: float = Field(default=1e-3, ge=0.0, description="weight of log p - log p_ref in the token reward")
    clip: Positive = 0.2


class Rloo(Section):
    """RLOO (arXiv 2402.14740): leave-one-out baseline, k1 KL in the token reward, returns whitened over the round."""

    kind: Literal["rloo"] = "rloo"
    kl: float = Field(default=1e-3, ge=0.0)
    clip: Positive = 0.2


class Grpo(Section):
    """GRPO (arXiv 2402.03300): rewards standardised within the group, k3 KL in the loss."""

    kind: Literal["grpo"] = "grpo"
    kl: float = Field(default=1e-3, ge=0.0)
    clip: Positive = 0.2


class Imitation(Section):
    """Next-token cross-entropy on documents; `prompt_weight` scales the loss on prompt tokens."""

    kind: Literal["imitation"] = "imitation"
    prompt_weight: Fraction = 0.1


PolicyObjective = Annotated[ReinforcePP | Rloo | Grpo, Field(discriminator="kind")]
Objective = Annotated[ReinforcePP | Rloo | Grpo | Imitation, Field(discriminator="kind")]


class Optimizer(Section):
    """AdamW and its learning-rate schedule; `warmup` and `decay` are shares of the horizon, past which the rate stays at its floor."""

    lr: Positive
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0.0)
    grad_clip: Positive = 1.0
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup: Fraction = 0.03
    decay: Fraction = Field(
        default=0.4, description="wsd only: the share of steps at the end over which the rate falls linearly"
    )
    min_lr_ratio: Fraction = 0.1
    offload: bool = Field(
        default=False, description="keep optimizer state in host memory (DeepSpeed CPU offload)"
    )


class Training(Section):
    """How weights are updated, whatever the objective."""

    optimizer: Optimizer
    epochs: Count = 1
    microbatch_tokens: Count = Field(
        default=16384, description="padded tokens in one forward pass of one rank"
    )
    zero: Literal[0, 1, 2, 3] = 1
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on GPUs, float32 on CPUs"
    )
    gradient_checkpointing: bool = False
    reduce_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="what gradients are added up in across ranks; bfloat16 sends half as much and rounds every sum",
    )
    export_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="what policies are published in; at learning rates near 1e-6 bfloat16 forgets much of a round",
    )
    checkpoint_behind: bool = Field(
        default=True,
        description="write checkpoints while training goes on, from a copy in host memory: 12 bytes a weight over all ranks",
    )
    checkpoint_every: Count = Field(default=50, description="optimizer steps between checkpoints")
    keep_checkpoints: Count = 2


class Train(Training):
    """Reinforcement learning on the round's groups whose vote is informative."""

    objective: PolicyObjective
    agreement: tuple[Fraction, Fraction] = Field(
        default=(0.2, 0.8), description="keep a group iff low <= share of rewarded answers <= high"
    )
    batch_samples: Count = Field(default=16, description="completions in one optimizer step, over all ranks")
    max_steps: Count | None = Field(
        default=None, description="stop the round after this many optimizer steps"
    )
    loss_mean: Literal["token", "sequence"] = "token"
    reference: Literal["base", "previous"] = Field(
        default="base", description="whose log-probabilities the KL is measured against"
    )
    importance_cap: float | None = Field(
        default=None, gt=0.0, description="truncate pi_trainer/pi_vllm at this value; null: no correction"
    )

    def max_groups(self, answers: int) -> int | None:
        """How many groups of so many answers `max_steps` steps learn from, each whole, so that baselines and normalisation see what is trained on."""
        return (
            None
            if self.max_steps is None
            else max(1, self.max_steps * self.batch_samples // (self.epochs * answers))
        )

    @model_validator(mode="after")
    def _some_kl(self) -> Self:
        if self.reference == "previous" and self.objective.kind != "grpo" and self.objective.kl > 0:
            raise ValueError(
                f"reference previous: a round's answers come from the policy before it, so that the KL in their reward ({self.objective.kind}) "
                "would always be 0; use reference: base, objective.kl: 0, or grpo, whose KL is in the loss"
            )
        return self

    @field_validator("agreement")
    @classmethod
    def _band(cls, agreement: tuple[float, float]) -> tuple[float, float]:
        if agreement[0] > agreement[1]:
            raise ValueError(f"{list(agreement)}: the low bound is above the high bound")
        return agreement


class Pretrain(Training):
    """Imitation of the corpus from random weights."""

    objective: Imitation = Imitation()
    batch_tokens: Count = Field(description="tokens in one optimizer step, over all ranks")
