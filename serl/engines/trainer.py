"""Weights that move: DeepSpeed's engine around the model, one optimizer step or one pass of log-probabilities at a time.

The only import of deepspeed. Every rank holds all samples of a batch, works on its share, and returns the same numbers. What is minimised
is sum(weight * loss) / sum(weight) over the whole optimizer batch (see `objective`): micro-batches, ranks and ZeRO stages change rounding
only. Randomness inside a step (dropout) is a function of (seed, step, rank), so a checkpoint needs no random state.
"""

import logging
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from serl.config.training import Training
from serl.engines import checkpoint, pieces
from serl.engines.model import TokenLogProbs, load_model, save_model
from serl.engines.pieces import Piece
from serl.engines.ranks import Ranks
from serl.learning.batch import Rows, Sample, collate, plan_micro_batches
from serl.learning.objective import Loss
from serl.learning.schedule import learning_rate
from serl.randomness import seed_of

MAX_BUCKET_BYTES = 2**28  # of parameters that ZeRO-3 makes whole at a time
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One optimizer step in numbers that are the same on every rank; `means` are means over response tokens, named by the loss."""

    step: int
    lr: float
    loss: float
    grad_norm: float
    samples: int
    tokens: int
    means: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where training goes on, the caller's values saved there, and why newer checkpoints were passed over."""

    step: int
    extra: dict[str, int | float | str]
    rejected: tuple[str, ...]


def compute_dtype(settings: Training) -> torch.dtype:
    """bfloat16 on GPUs and float32 on CPUs, unless the configuration says otherwise."""
    if settings.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return DTYPES[settings.dtype]


class Trainer:
    """A model, its optimizer and its place in the schedule.

    `lm` comes in float32, equal on every rank, and belongs to the trainer from then on. `horizon` is the number of steps of the schedule.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        settings: Training,
        *,
        ranks: Ranks,
        horizon: int,
        seed: int,
        temperature: float = 1.0,
    ):
        self.ranks, self.settings, self.horizon, self.seed = ranks, settings, horizon, seed
        self.step_index = 0
        self._lm = lm
        self._dtype = compute_dtype(settings)
        # DeepSpeed's stage 0 in bfloat16 corrects Adam's bias wrongly: its first step is three quarters of the right one
        self._stage = settings.zero if self._dtype == torch.float32 else max(settings.zero, 1)
        self._packed = lm.config._attn_implementation == "flash_attention_2"
        if settings.gradient_checkpointing:
            lm.gradient_checkpointing_enable({"use_reentrant": False})
        weights = {name: p.detach() for name, p in lm.named_parameters()}
        self._engine = _engine(TokenLogProbs(lm, temperature), settings, self._stage, self._dtype, ranks)
        if self._dtype != torch.float32:
            self._set_masters(weights)

    def step(self, batch: Sequence[Sample], loss: Loss) -> StepStats:
        """One optimizer step on the whole batch; raises FloatingPointError before a number that is not finite can reach a checkpoint."""
        lr = learning_rate(self.step_index, self.horizon, self.settings.optimizer)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(seed_of(self.seed, "step", self.step_index, self.ranks.rank))
        weight = sum(s.column["weight"].sum(dtype=torch.float64).item() for s in batch)
        assert weight > 0, "a batch without weight has nothing to minimise"
        names, sums = self._backward(batch, loss, self.ranks.size / weight)
        total = dict(zip(names, self.ranks.sum(sums).tolist()))
        if not math.isfinite(total["loss"]):
            raise FloatingPointError(
                f"loss is {total['loss']} at step {self.step_index}: lower the learning rate, or look at this batch"
            )
        grad_norm = self._update()
        self.step_index += 1
        tokens = sum(s.num_response for s in batch)
        means = {name: value / tokens for name, value in total.items() if name != "loss"}
        loss_mean = total["loss"] / weight
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
        """Gradients of this rank's share; the loss and statistics, summed over it. DeepSpeed averages over ranks, `scale` undoes that."""
        nothing = {name: value_T[:0] for name, value_T in batch[0].column.items()}
        plan = self._plan(batch)
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
                f"the gradient's norm is {float(norm)} at step {self.step_index}: go back to the last checkpoint"
            )
        return float(norm)

    def logprobs(self, samples: Sequence[Sample], *, temperature: float | None = None) -> list[Tensor]:
        """Log-probabilities of every sample's response tokens under the present weights, all of them on every rank, on the CPU.

        At the trainer's temperature, or at another.
        """
        head = self._engine.module.head
        usual = head.temperature
        head.temperature = usual if temperature is None else temperature
        self._engine.eval()
        flat = _gather_logprobs(self._engine, samples, self._plan(samples), self._packed, self.ranks)
        self._engine.train()
        head.temperature = usual
        return flat

    def _plan(self, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
        lengths = [len(s.token_L) for s in samples]
        return plan_micro_batches(lengths, self.ranks.size, self.settings.microbatch_tokens, self._packed)[
            self.ranks.rank
        ]

    def save(self, root: Path, extra: dict[str, int | float | str]) -> Path:
        """Write a checkpoint of this step and delete the ones beyond `keep_checkpoints`; all ranks call it."""
        partial = self.ranks.from_first(
            checkpoint.partial_folder(root, self.step_index, uuid.uuid4().hex[:12])
        )
        partial.mkdir(parents=True, exist_ok=True)
        written = pieces.write(partial, f"rank_{self.ranks.rank:05d}", self._held(own=True))
        files = {
            name: value
            for part in self.ranks.gather(checkpoint.seal(partial, written))
            for name, value in part.items()
        }
        if self.ranks.first:
            manifest = checkpoint.Manifest(
                step=self.step_index,
                world_size=self.ranks.size,
                zero=self._stage,
                dtype=str(self._dtype).removeprefix("torch."),
                extra=extra,
                files=files,
            )
            checkpoint.publish(partial, manifest)
            checkpoint.prune(root, self.settings.keep_checkpoints)
        self.ranks.barrier()
        return checkpoint.step_folder(root, self.step_index)

    def load(self, root: Path) -> Resumed | None:
        """Go on from the newest valid checkpoint; None if there is none. All ranks call it.

        Any number of ranks and any ZeRO stage may go on from it: bit by bit where they are those that saved, to rounding elsewhere.
        """
        found = self.ranks.from_first(checkpoint.newest_valid(root) if self.ranks.first else None)
        if found.folder is None:
            return None
        pieces.fill(list(self._held(own=False)), [found.folder / name for name in found.manifest.files])
        pieces.set_adam_step(self._engine, found.manifest.step)
        pieces.use_masters(self._engine, self._stage)
        self.step_index = found.manifest.step
        return Resumed(step=found.manifest.step, extra=found.manifest.extra, rejected=found.rejected)

    def _held(self, *, own: bool) -> Iterator[Piece]:
        """The training state on this rank; at stage 0, where all ranks have all of it, only its share if `own`."""
        for piece in chain(
            pieces.masters(self._engine, self._lm, self._stage),
            pieces.moments(self._engine, self._lm, self._stage),
        ):
            yield piece.share(self.ranks.rank, self.ranks.size) if own and self._stage == 0 else piece

    def export(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write the whole model and tokenizer as a Hugging Face folder, from any ZeRO stage; rank 0 writes, all ranks call it.

        float32 keeps the master weights: at learning rates near 1e-6 a policy rounded to bfloat16 would forget much of its round.
        """
        weights = {}
        for name, p in self._lm.named_parameters():
            full = self._full(p)
            if self.ranks.first:
                weights[name] = full.to("cpu", dtype)
        if self.ranks.first:
            save_model(self._lm, tokenizer, weights, dtype, folder)
        self.ranks.barrier()

    def weights(self, max_bytes: int = MAX_BUCKET_BYTES) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, whole, as the forward pass has it, under its name; all ranks walk to the end.

        ZeRO-3 gathers at most `max_bytes` at a time, or one parameter; a tensor lives as long as somebody holds
        it. Tied embeddings come twice, also as the output layer, where vLLM 0.32 would keep the old ones.
        """
        embedding, output = self._lm.get_input_embeddings(), self._lm.get_output_embeddings()
        also = next(f"{name}.weight" for name, module in self._lm.named_modules() if module is output)
        for bucket in _buckets(self._lm.named_parameters(), max_bytes):
            split = [p for _, p in bucket if p.numel() == 0]
            if split:
                split[0].all_gather(split)
            for name, p in bucket:
                yield name, p.detach()
                if p is embedding.weight and p is output.weight:
                    yield also, p.detach()
            if split:
                split[0].partition(split)

    def _full(self, p: torch.nn.Parameter) -> Tensor:
        """The whole float32 master of a parameter that ZeRO may have split."""
        from deepspeed.utils import safe_get_full_fp32_param

        return p.detach() if self._stage == 0 else safe_get_full_fp32_param(p)

    def _set_masters(self, weights: dict[str, Tensor]) -> None:
        """Give DeepSpeed the float32 weights; it would make its masters from their bfloat16 copies."""
        for piece in pieces.masters(self._engine, self._lm, self._stage):
            piece.value_N.copy_(
                weights[piece.name].reshape(-1)[piece.start : piece.start + len(piece.value_N)]
            )


def frozen_logprobs(
    folder: Path, settings: Training, *, ranks: Ranks, temperature: float = 1.0
) -> Callable[[Sequence[Sample]], list[Tensor]]:
    """The model at `folder` as a function from samples to their log-probabilities: every rank loads it, and reads its share of the samples in it."""
    dtype = compute_dtype(settings)
    lm = load_model(folder, dtype, dtype).to(ranks.device).eval()
    packed = lm.config._attn_implementation == "flash_attention_2"
    forward = TokenLogProbs(lm, temperature)

    def logprobs(samples: Sequence[Sample]) -> list[Tensor]:
        plan = plan_micro_batches(
            [len(s.token_L) for s in samples], ranks.size, settings.microbatch_tokens, packed
        )[ranks.rank]
        return _gather_logprobs(forward, samples, plan, packed, ranks)

    return logprobs


@torch.no_grad()
def _gather_logprobs(
    forward: Callable[[Rows], Tensor],
    samples: Sequence[Sample],
    plan: Sequence[tuple[int, ...]],
    packed: bool,
    ranks: Ranks,
) -> list[Tensor]:
    """Each rank fills in its samples; the sum over ranks is everybody's."""
    lengths = [s.num_response for s in samples]
    whole = torch.zeros(sum(lengths), device=ranks.device)
    part = whole.split(lengths)
    for micro in plan:
        logp_T = forward(collate([samples[i] for i in micro], packed).to(ranks.device))
        for i, logp in zip(micro, logp_T.split([lengths[i] for i in micro])):
            part[i].copy_(logp)
    return list(ranks.sum(whole).cpu().split(lengths))


def _engine(module: TokenLogProbs, settings: Training, stage: int, dtype: torch.dtype, ranks: Ranks):
    """DeepSpeed's engine with torch's fused AdamW: no compiler is called, on CPUs or for offloading."""
    if ranks.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optimizer = torch.optim.AdamW(
        _groups(module, settings), lr=settings.optimizer.lr, betas=settings.optimizer.betas, fused=True
    )
    num_weights = sum(p.numel() for p in module.parameters())
    zero = {
        "stage": stage,
        "reduce_bucket_size": min(num_weights, 2**26),
        "allgather_bucket_size": min(num_weights, 2**28),
        "overlap_comm": ranks.device.type == "cuda",
        "stage3_prefetch_bucket_size": min(num_weights, 2**26),
        "stage3_param_persistence_threshold": min(num_weights // 100, 100_000),
    }
    if settings.optimizer.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": ranks.device.type == "cuda"}
    config = {
        "train_batch_size": ranks.size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": settings.optimizer.grad_clip if stage else 0.0,
        "steps_per_print": 2**31,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    if dtype == torch.bfloat16:
        config |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    deepspeed.init_distributed(
        dist_backend="nccl" if ranks.device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
    )
    return deepspeed.initialize(model=module, optimizer=optimizer, config=config)[0]


def _buckets(
    parameters: Iterable[tuple[str, torch.nn.Parameter]], max_bytes: int
) -> Iterator[list[tuple[str, torch.nn.Parameter]]]:
    """Parameters in their order, as many at a time as fit; one that is larger is alone."""
    bucket: list[tuple[str, torch.nn.Parameter]] = []
    size = 0
    for name, p in parameters:
        num_bytes = getattr(p, "ds_numel", p.numel()) * p.element_size()
        if bucket and size + num_bytes > max_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, p))
        size += num_bytes
    if bucket:
        yield bucket


def _groups(module: torch.nn.Module, settings: Training) -> list[dict]:
    """Weight decay acts on matrices, not on norms and biases."""
    decay = settings.optimizer.weight_decay
    if decay == 0:
        return [{"params": list(module.parameters()), "weight_decay": 0.0}]
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
