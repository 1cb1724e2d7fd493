"""Weights that move: DeepSpeed's engine around the model, one optimizer step or one pass of log-probabilities
at a time.

Every rank holds all samples of a batch, works on its share, and returns the same numbers. What is minimised
is sum(weight * loss) / sum(divisor) over the whole optimizer batch (see `objective`): micro-batches, ranks
and ZeRO stages change rounding only. Randomness inside a step (dropout) is a function of (seed, step, rank),
so a checkpoint needs no random state.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from serl.config.training import Training
from serl.engines import lora, pieces
from serl.engines.export import export_model
from serl.engines.hf_folder import HeadKind
from serl.engines.keeper import Extra, Keeper, Resumed
from serl.engines.loading import prepare
from serl.engines.packed import is_packed
from serl.engines.passes import gather_logprobs, module_of, share_of
from serl.engines.ranks import Ranks
from serl.engines.slices import Sealed
from serl.engines.whole import whole_parameters
from serl.engines.zero import DTYPES, plan_of, training_engine
from serl.learning.batch import Sample, collate
from serl.learning.objective import Loss, divisor
from serl.learning.schedule import learning_rate
from serl.randomness import seed_of

BASE = "base"  # of a checkpoint of adapters: the fingerprint of the weights that they are over


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One optimizer step in numbers that are the same on every rank; `means` are means over response tokens,
    named by the loss.
    """

    step: int
    lr: float
    loss: float
    grad_norm: float
    samples: int
    tokens: int
    means: dict[str, float]


class Trainer:
    """A model, its optimizer and its place in the schedule.

    `model` is a folder, of which every rank reads its share, or a model in float32, equal on every rank,
    which belongs to the trainer from then on. `horizon` is the number of steps of the schedule. `head` says
    what losses read: log-probabilities, or the numbers of a scalar head. `in_pairs`: a batch's neighbours
    are pairs, which losses need together.
    """

    def __init__(
        self,
        model: PreTrainedModel | Path,
        settings: Training,
        *,
        ranks: Ranks,
        horizon: int,
        seed: int,
        temperature: float = 1.0,
        head: HeadKind = "tokens",
        in_pairs: bool = False,
    ):
        self.ranks, self.settings, self.horizon, self.seed = ranks, settings, horizon, seed
        self.temperature, self._in_pairs = temperature, in_pairs
        self.step_index = 0
        self._plan = plan_of(settings, ranks)
        self._stage = self._plan.stage
        self._lm, fill = prepare(model, self._plan, head, seed)
        self._base, self._model = fill, model
        if settings.lora:
            lora.check(self._lm, head)
            lora.adapt(self._lm, settings.lora, self._plan)
            fill = lora.first(self._lm, seed, fill)
        self._packed = is_packed(self._lm)
        if settings.gradient_checkpointing:
            self._lm.gradient_checkpointing_enable({"use_reentrant": False})
        module = module_of(self._lm, head, temperature)
        if self._plan.compiled:
            module.compile_pieces()
        self._engine = training_engine(module, self._plan)
        for piece in pieces.masters(self._engine, self._lm, self._stage):
            fill(piece.name, piece.start, piece.value_N)
        lora.fill_frozen(self._lm, self._plan, fill)
        pieces.use_masters(self._engine, self._stage)
        self._keeper = Keeper(self._engine, self._lm, self._plan)
        self._beside: list[Trainer] = []

    def hold(self, name: str, other: "Trainer") -> None:
        """From now on save, load and hand on another trainer's state with this one's; it takes a step
        whenever this one does.
        """
        self._keeper.hold(name, other._keeper)
        self._beside.append(other)

    def step(self, batch: Sequence[Sample], loss: Loss) -> StepStats:
        """One optimizer step on the whole batch; raises FloatingPointError before a number that is not finite
        can reach a checkpoint.
        """
        self._engine.train()  # a loaded model is in eval mode, in which no layer is checkpointed
        lr = learning_rate(self.step_index, self.horizon, self.settings.optimizer)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(seed_of(self.seed, "step", self.step_index, self.ranks.rank))
        total_divisor = sum(divisor(s.column) for s in batch)
        assert total_divisor > 0, "a batch without weight has nothing to minimise"
        names, sums = self._backward(batch, loss, self.ranks.size / total_divisor)
        total = dict(zip(names, self.ranks.sum(sums).tolist()))
        if not math.isfinite(total["loss"]):
            raise FloatingPointError(
                f"loss is {total['loss']} at step {self.step_index}: "
                "lower the learning rate, or look at this batch"
            )
        grad_norm = self._update()
        self.step_index += 1
        tokens = sum(s.num_response for s in batch)
        means = {name: value / tokens for name, value in total.items() if name != "loss"}
        loss_mean = total["loss"] / total_divisor
        return StepStats(
            step=self.step_index,
            lr=lr,
            loss=loss_mean,
            grad_norm=grad_norm,
            samples=len(batch),
            tokens=tokens,
            means=means,
        )

    def _backward(self, batch: Sequence[Sample], loss: Loss, scale: float) -> tuple[list[str], Tensor]:
        """Gradients of this rank's share; the loss and statistics, summed over it. DeepSpeed averages over
        ranks, `scale` undoes that.
        """
        nothing = {name: value_T[:0] for name, value_T in batch[0].column.items()}
        plan = self._share(batch, in_pairs=self._in_pairs)
        names, totals = [], torch.zeros(0)
        for turn, micro in enumerate(plan):
            rows = collate([batch[i] for i in micro], self._packed).to(self.ranks.device)
            self._engine.set_gradient_accumulation_boundary(turn == len(plan) - 1)
            loss_sum, sums = loss(self._engine(rows), rows.column or nothing)
            self._engine.backward(loss_sum * scale)
            names = ["loss", *sums]
            values = torch.stack([v.detach().double() for v in (loss_sum, *sums.values())])
            totals = values if turn == 0 else totals + values
        return names, totals

    def _update(self) -> float:
        """Move the weights by the gradients gathered; returns the gradient's norm before clipping."""
        limit = self.settings.optimizer.grad_clip
        if self._stage == 0:
            norm = torch.nn.utils.clip_grad_norm_(self._lm.parameters(), limit)
            self._engine.step()
        else:
            self._engine.step()
            norm = self._engine.get_global_grad_norm()
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"the gradient's norm is {float(norm)} at step {self.step_index}: "
                "go back to the last checkpoint"
            )
        return float(norm)

    def logprobs(self, samples: Sequence[Sample], *, temperature: float | None = None) -> list[Tensor]:
        """Log-probabilities of every sample's response tokens under the present weights, all of them on every
        rank, on the CPU; at the trainer's temperature, or at another.
        """
        head = self._engine.module.head
        head.temperature = self.temperature if temperature is None else temperature
        flat = self.outputs(samples)
        head.temperature = self.temperature
        return flat

    def outputs(self, samples: Sequence[Sample]) -> list[Tensor]:
        """What the head gives of every sample's response tokens, likewise."""
        self._engine.eval()
        return gather_logprobs(self._engine, samples, self._share(samples), self._packed, self.ranks)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, whole, in the type of the forward pass; all ranks walk to the end. See
        `whole_parameters`.
        """
        return lora.merged_parameters(self._lm) if self.settings.lora else whole_parameters(self._lm)

    def _share(self, samples: Sequence[Sample], *, in_pairs: bool = False) -> list[tuple[int, ...]]:
        most = self.settings.microbatch_tokens
        return share_of(samples, most, self._packed, self.ranks, in_pairs=in_pairs)

    def save(self, root: Path, extra: Extra, *, behind: bool = False) -> Path:
        """Write a checkpoint of this step and delete the ones beyond `keep_checkpoints`; all ranks call it.

        With `behind` it is written while training goes on, and is there at the latest when the next `save` or
        `fence` returns.
        """
        return self._keeper.save(root, self.step_index, extra | self._under(), behind=behind)

    def _under(self) -> Extra:
        """What a checkpoint says of weights that it does not have."""
        folder = self._model
        return {BASE: lora.fingerprint(folder)} if self.settings.lora and isinstance(folder, Path) else {}

    def fence(self) -> None:
        """Wait for the checkpoint that is being written, if one is; all ranks call it, before they leave."""
        self._keeper.fence()

    def load(self, root: Path) -> Resumed | None:
        """Go on from the newest valid checkpoint; None if there is none. All ranks call it.

        Any number of ranks and any ZeRO stage may go on from it: bit by bit where they are those that saved,
        to rounding elsewhere.
        """
        resumed = self._keeper.load(root)
        if resumed is None:
            return None
        if (under := resumed.extra.pop(BASE, None)) not in (None, self._under().get(BASE)):
            raise ValueError(
                f"{root}: its adapters were trained over other weights than {self._model} has now ({under}); "
                "put those back, or remove the checkpoints to begin anew"
            )
        self._come_to(resumed.step)
        return resumed

    def _come_to(self, step: int) -> None:
        for trainer in (self, *self._beside):
            trainer.step_index = step

    def export_state(self, folder: Path) -> dict[str, Sealed]:
        """Write what the next training needs, beside the exported policy, to go on as if it were this one:
        all ranks call it.

        That is Adam's moments and step, and the float32 masters where the policy is published in less. The
        files' sizes and hashes.
        """
        masters = self.settings.export_dtype != "float32"
        return self._keeper.export(folder, self.step_index, masters=masters)

    def adopt(self, folder: Path) -> int:
        """Go on from another training's `export_state`, its policy being this one's model; returns the step
        that it had come to.

        The schedule goes on, too: `horizon` counts from the first training's first step. All ranks call it,
        any number at any stage.
        """
        self._come_to(self._keeper.adopt(folder))
        return self.step_index

    def export(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype | None = None
    ) -> dict[str, Sealed]:
        """Write the whole model and tokenizer as a Hugging Face folder, from any ZeRO stage; all ranks call
        it, and each writes its files.

        In `export_dtype` where no other is given. The sizes and hashes of the weights' files.
        """
        dtype = dtype or DTYPES[self.settings.export_dtype]
        if not self.settings.lora:
            return export_model(self._lm, tokenizer, self._plan, dtype, folder)
        held = lora.masters(self._lm, self._stage)
        read = lora.merged_reader(self._lm, self._base, held)
        sealed = export_model(self._lm, tokenizer, self._plan, dtype, folder, read)
        if self.ranks.first:
            sealed |= lora.save_adapter(folder / lora.FOLDER, self.settings.lora, held, str(self._model))
        return sealed
