"""How weights are updated, as configuration: the optimizer and the two kinds of training (objectives: see
`objectives`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from serl.config.objectives import Imitation
from serl.config.schema import Count, Fraction, Positive, Section
from serl.engines.arguments import check_zero

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Optimizer(Section):
    """AdamW and its learning-rate schedule; `warmup` and `decay` are shares of the horizon, past which the
    rate stays at its floor.
    """

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


class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685): W + alpha / rank * B A, where A and B alone are trained."""

    rank: Count
    alpha: Positive
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="linear layers by the end of their name, like q_proj; null: all of the model's blocks",
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="share of a layer's inputs that its adapter does not see in a step"
    )


class Training(Section):
    """How weights are updated, whatever the objective."""

    optimizer: Optimizer
    epochs: Count = 1
    microbatch_tokens: Count = Field(
        default=16384, description="tokens in one forward pass of one rank, padding included"
    )
    packing: bool | None = Field(
        default=None,
        description="lay samples end to end in a forward pass instead of padding them to one length; null: "
        "where a kernel for it is there (flash attention, or torch's own on GPUs since Ampere)",
    )
    zero: Literal[0, 1, 2, 3] = 1
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on GPUs, float32 on CPUs"
    )
    gradient_checkpointing: bool = False
    compile: bool = Field(
        default=True,
        description="on GPUs, fuse each layer's small kernels (torch.compile): half a minute at the start, a "
        "step takes a quarter less; needs a C compiler, as vLLM does; not at ZeRO stage 3",
    )
    reduce_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="what gradients are added up in across ranks; bfloat16 sends half as much and rounds "
        "every sum",
    )
    export_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="what policies are published in; at learning rates near 1e-6 bfloat16 forgets much of a "
        "round",
    )
    checkpoint_behind: bool = Field(
        default=True,
        description="write checkpoints while training goes on, from a copy in host memory: 12 bytes a weight "
        "over all ranks",
    )
    checkpoint_every: Count = Field(
        default=50,
        description="optimizer steps between checkpoints; in a training that samples for itself, turns",
    )
    keep_checkpoints: Count = 2
    lora: Lora | None = Field(default=None, description="null: all weights are trained")
    deepspeed: dict[str, JsonValue] = Field(
        default={},
        description="more keys of DeepSpeed's zero_optimization, as they are: "
        "{reduce_bucket_size: 500000000, zero_hpz_partition_size: 8}",
    )

    @field_validator("deepspeed")
    @classmethod
    def _known(cls, deepspeed: dict[str, JsonValue]) -> dict[str, JsonValue]:
        check_zero(deepspeed)
        return deepspeed

    def kept_bytes(self, ranks: int, *, gpu: bool) -> float:
        """Of a weight that moves, on its device, at the end of a backward pass: itself, its gradient and its
        optimizer's state, as DeepSpeed keeps them on each of so many ranks; offloaded state left out. One
        rank alone keeps the gradient in the weight's own type.
        """
        half = self.dtype == "bfloat16" or (self.dtype == "auto" and gpu)
        weight, state = (2, 12) if half else (4, 12)
        moved, gradient = 0 if self.optimizer.offload else state / ranks, weight if ranks == 1 else 4
        match max(self.zero, int(half)):
            case 0:
                return 16
            case 1 | 2:
                return weight + gradient / ranks + moved
            case _:
                return (weight + 4 + gradient) / ranks + moved


class Pretrain(Training):
    """Imitation of the corpus from random weights."""

    objective: Imitation = Imitation(prompt_weight=0.1)
    batch_tokens: Count = Field(description="tokens in one optimizer step, over all ranks")

    @model_validator(mode="after")
    def _all_of_it(self) -> Self:
        if self.lora is not None:
            raise ValueError("lora: a base of random weights is trained whole; take lora away")
        return self
