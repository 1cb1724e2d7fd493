"""From a model folder to weights where they are needed, and nowhere else: no rank holds the whole of a model
that others share with it.

A model is first made without weights; then each rank makes room for its share, on its device, and reads that
alone from the files. What a folder stores under other names than the model's own is left to transformers,
which reads it whole on every rank.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from serl.engines.hf_folder import HeadKind, has_score, validate_scored
from serl.engines.model import attention_of, hollow_model, load_model
from serl.engines.scores import HEAD, first_head
from serl.engines.slices import STRETCH, Slices
from serl.engines.zero import BUCKET, SHARD_BYTES, Plan, materialise, shares

Fill = Callable[[str, int, Tensor], None]  # (name, first element, the tensor to fill from there on)
MASTER_BYTES, GRADIENT_BYTES = 4, 4  # of a weight, in float32
STATE_BYTES = 12  # of a weight: its master and Adam's two moments
PROCESS_BYTES = 2**27  # that allocators and threads take beside what is asked for


def prepare(
    model: PreTrainedModel | Path, plan: Plan, head: HeadKind = "tokens", seed: int = 0
) -> tuple[PreTrainedModel, Fill]:
    """A model to train, with room for its weights, and what fills any stretch of them; one that is in memory
    brings its own.

    A folder without a head for scores is given one, made from the seed.
    """
    own: dict[str, Tensor] = {}
    read: Fill | None = None
    if isinstance(model, Path):
        folder, (lm, slices) = model, _open(model, plan, head)
        if lm is None:
            lm = load_model(folder, torch.float32, plan.dtype, plan.ranks.device, head, plan.settings.packing)
            own = _weights(lm)
        else:
            read = slices.read
        if head == "scalar" and not has_score(folder):
            own[HEAD] = first_head(lm.config.hidden_size, seed)
        model = lm
    else:
        suits = attention_of(model.config, plan.dtype, plan.ranks.device, plan.settings.packing)
        model.set_attn_implementation(suits)
        own = _weights(model)

    def fill(name: str, start: int, value_N: Tensor) -> None:
        if name in own:
            value_N.copy_(own[name].reshape(-1)[start : start + len(value_N)])
        else:
            read(name, start, value_N)

    return model, fill


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def load_frozen(folder: Path, plan: Plan, head: HeadKind = "tokens") -> PreTrainedModel:
    """A model to ask only, on its device: whole, or at stage 3 this rank's share of it."""
    if head == "scalar":
        validate_scored(folder)
    lm, slices = _open(folder, plan, head)
    if lm is None:
        device = plan.ranks.device
        lm = load_model(folder, plan.dtype, plan.dtype, device, head, plan.settings.packing)
        return lm.to(device).eval()
    for name, start, value_N in shares(lm, plan):
        slices.read(name, start, value_N)
    return lm.eval()


def _open(folder: Path, plan: Plan, head: HeadKind) -> tuple[PreTrainedModel | None, Slices]:
    """The model with zeros for weights and what the files have; no model where those are not simply its
    weights.
    """
    device, packing = plan.ranks.device, plan.settings.packing
    lm = hollow_model(folder, torch.float32, plan.dtype, device, head, packing)
    slices = Slices(folder)
    new = {HEAD} if head == "scalar" and not has_score(folder) else set()
    if lm is None or _strangers(lm, slices) - new:
        return None, slices
    materialise(lm, plan)
    for name, buffer in lm.named_buffers():
        if slices.shape(name) == tuple(buffer.shape) and buffer.is_floating_point():
            slices.read(name, 0, buffer.view(-1))
    return lm, slices


def _strangers(lm: PreTrainedModel, slices: Slices) -> set[str]:
    """Weights of the model that the folder's files do not have under their name and in their shape."""
    return {name for name, p in lm.named_parameters() if slices.shape(name) != tuple(p.shape)}


def load_bytes(num_weights: int, plan: Plan, *, ranks_per_node: int) -> int:
    """Host memory that the ranks of a node take, at most, to load a model; what a process takes anyway is
    left out.

    On GPUs that is a stretch of a file for each, and the optimizer's state and gradients where they are
    offloaded (the moments from the first step on). On CPUs the weights are in host memory, too, and what
    DeepSpeed makes of them at once: masters and gradients, and at stage 3 a bucket, below it copies of the
    whole.
    """
    whole, size = num_weights * plan.dtype.itemsize, plan.ranks.size
    kept = float(2 * MASTER_BYTES * STRETCH)
    match plan.ranks.device.type, plan.stage:
        case "cpu", 0:
            kept += whole
        case "cpu", 3:
            bucket = min(num_weights, BUCKET) * plan.dtype.itemsize
            kept += (whole + (MASTER_BYTES + GRADIENT_BYTES) * num_weights) / size + bucket + SHARD_BYTES
        case "cpu", _:
            kept += MASTER_BYTES * num_weights / size + GRADIENT_BYTES * num_weights + 3 * whole
        case _ if plan.settings.optimizer.offload:
            kept += (STATE_BYTES + GRADIENT_BYTES) * num_weights / size
    return round(ranks_per_node * (kept + PROCESS_BYTES))


def snapshot_bytes(num_weights: int, plan: Plan, *, ranks_per_node: int) -> int:
    """Host memory on a node for the copy from which a checkpoint is written while training goes on."""
    return STATE_BYTES * num_weights * ranks_per_node // plan.ranks.size
