"""train: from the groups of a round to its policy; in round 0, from the corpus to the base model."""

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from serl.config.base import Scratch
from serl.config.objectives import Mean, PolicyObjective, ReinforcePP, Rloo, own_mean
from serl.config.run import RunConfig
from serl.config.schema import Count, Fraction, Section
from serl.config.training import Training
from serl.stages.kind import POLICY, Bounds, Kind, Stage, StageSection, World

POLICY_BYTES = 4  # per parameter: published in float32
POLICY_MORE = 2**20, 0.02  # tokenizer and configuration, and what a count from the architecture leaves out
POLICY_FILE_BYTES = 4 * 10**9  # transformers begins a new file before 5 GB
CHECKPOINT_BYTES = 12  # per parameter: float32 master and two Adam moments


class Train(Training, StageSection):
    """Reinforcement learning on the round's groups whose vote is informative."""

    role: str = Field(default=POLICY, description="whose weights move")
    init: str = Field(
        default="previous",
        description="where they start: previous (as the role's last training left them), base, or another role",
    )
    data: str | None = Field(
        default=None, description="the stage whose groups are learned from; null: the nearest before"
    )
    objective: PolicyObjective
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
        default="base", description="whose log-probabilities the KL is measured against"
    )
    importance_cap: float | None = Field(
        default=None, gt=0.0, description="truncate pi_trainer/pi_vllm at this value; null: no correction"
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
        if self.reference == "previous" and in_reward and self.objective.kl > 0:
            raise ValueError(
                "reference previous: a round's answers come from the policy before it, so that the KL in their "
                f"reward ({self.objective.kind}) would always be 0; use reference: base, objective.kl: 0, or grpo, "
                "whose KL is in the loss"
            )
        return self

    @model_validator(mode="after")
    def _one_mean(self) -> Self:
        own = own_mean(self.objective)
        if self.loss_mean is not None and own not in (None, self.loss_mean):
            raise ValueError(
                f"loss_mean {self.loss_mean}: {self.objective.kind} weighs by {own} itself; take loss_mean away"
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

    def uses(self, section: Train) -> tuple[str, ...]:
        if not isinstance(section, Train) or section.init in ("previous", "base"):
            return ()
        return (section.init,)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        """Its groups or documents, and the weights that it starts from, where nothing that it reads waits for them."""
        data = self.data(stage, config)
        return (data,) if data else ()

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        gives = "groups" if isinstance(stage.section, Train) else "documents"
        return config.source(stage, gives, getattr(stage.section, "data", None))

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        section = stage.section
        if self.data(stage, config) is None:
            what = f".data {section.data}: no stage of that name" if section.data else ": no stage"
            yield f"{what} before it in the round writes groups; list one that does, like respond"
        if (start := section.init) not in ("previous", "base") and config.trained(stage, start) is None:
            yield f".init {start}: no stage before it trains that role; use previous, base or a role that is trained"

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        more, share = POLICY_MORE
        lasting = int(more + (1 + share) * world.num_parameters * POLICY_BYTES)
        temporary = world.num_parameters * CHECKPOINT_BYTES * (stage.section.keep_checkpoints + 1)
        files = self.files + lasting // POLICY_FILE_BYTES
        return Bounds(files=files, bytes=lasting, temporary_bytes=temporary)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        base = config.base
        seed = base.seed if isinstance(base, Scratch) and stage.round == 0 else None
        return {"seed": config.seed if seed is None else seed, "base": base, "section": stage.section}


KIND = TrainKind()
