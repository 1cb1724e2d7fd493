"""Low-rank adapters (arXiv 2106.09685): W + alpha / rank * B A, of which A and B move and W stays as it is.

An adapted layer keeps its class's place and its weight's name: folders, checkpoints and engines find W where
it was, and A and B beside it. Shapes: R rank, I inputs, O outputs; A is RI, B is OR.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from serl.config.training import Lora
from serl.engines.hf_folder import HeadKind, validate_targets
from serl.engines.loading import Fill
from serl.engines.model import stored_plainly
from serl.engines.slices import Sealed, Slices, write_slices
from serl.engines.whole import whole_parameters
from serl.engines.zero import Plan, room_for, shares, whole
from serl.randomness import seed_of

A, B = "lora_A", "lora_B"
FOLDER = "adapter"  # inside a published policy
SAMPLE = 1024  # numbers of each tensor that tell one base from another


class LoraLinear(nn.Linear):
    """A linear layer with an adapter beside its weight; `adapt` makes one of a layer that is there."""

    scale: float
    dropout: float

    def forward(self, x: Tensor) -> Tensor:
        held = nn.functional.dropout(x, self.dropout, self.training)
        low = nn.functional.linear(nn.functional.linear(held, self.lora_A), self.lora_B)
        return super().forward(x) + self.scale * low


def adapt(lm: nn.Module, lora: Lora, plan: Plan) -> None:
    """Freeze the model, and give its layers adapters: A and B have room, and no values yet (see `first`).

    Layers are the linear ones inside the model's numbered blocks, those that end in one of `targets`.
    ValueError where a target names none.
    """
    lm.requires_grad_(False)
    inside = {name: m for name, m in lm.named_modules() if isinstance(m, nn.Linear) and numbered(name)}
    known = sorted({name.rpartition(".")[2] for name in inside})
    validate_targets(lora.targets or (), known)
    layers = [m for name, m in inside.items() if name.rpartition(".")[2] in (lora.targets or known)]
    shapes = [s for m in layers for s in ((lora.rank, m.in_features), (m.out_features, lora.rank))]
    room = iter(room_for(shapes, plan))
    for layer in layers:
        layer.__class__ = LoraLinear
        layer.scale, layer.dropout = lora.alpha / lora.rank, lora.dropout
        layer.lora_A, layer.lora_B = next(room), next(room)


def check(lm: PreTrainedModel, head: HeadKind) -> None:
    """Raise ValueError where a model cannot be adapted."""
    if head != "tokens":
        raise ValueError("lora: a model with a scalar head is trained whole; take lora away")
    if not stored_plainly(lm):
        raise ValueError(
            f"lora: weights of a {type(lm).__name__} are stored otherwise than they are computed with, and "
            "adapters could not be merged into them; take lora away"
        )


def numbered(name: str) -> bool:
    """Whether a module is of one of a model's blocks, and neither its embedding nor its output layer."""
    return any(part.isdigit() for part in name.split("."))


def is_adapter(name: str) -> bool:
    return name.endswith((f".{A}", f".{B}"))


def first(lm: nn.Module, seed: int, base: Fill) -> Fill:
    """What fills adapters and all else: A as PEFT does, uniform within sqrt(1 / inputs), a function of the
    seed and its name; B is 0, so that the model begins as what it was.
    """
    shapes = {n: getattr(p, "ds_shape", p.shape) for n, p in lm.named_parameters()}

    def fill(name: str, start: int, value_N: Tensor) -> None:
        if name.endswith(f".{B}"):
            value_N.zero_()
        elif name.endswith(f".{A}"):
            drawn = torch.Generator().manual_seed(seed_of(seed, "lora", name))
            uniform_RI = 2 * torch.rand(tuple(shapes[name]), generator=drawn) - 1
            first_RI = uniform_RI * shapes[name][1] ** -0.5
            value_N.copy_(first_RI.view(-1)[start : start + len(value_N)])
        else:
            base(name, start, value_N)

    return fill


def fill_frozen(lm: nn.Module, plan: Plan, fill: Fill) -> None:
    """The base's weights into what this rank keeps of them."""
    frozen = {name for name, p in lm.named_parameters() if not p.requires_grad}
    for name, start, value_N in shares(lm, plan):
        if name in frozen:
            fill(name, start, value_N)


# --------------------------------------------------------------------------------------------------- merged
def merged_parameters(lm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the model that the adapters make, whole, in the type of the forward pass."""
    adapters = [(n, p) for n, p in lm.named_parameters() if is_adapter(n)]
    held = {name: p.float().clone() for name, p in whole_parameters(lm, named=adapters)}
    rest = [(n, p) for n, p in lm.named_parameters() if not is_adapter(n)]
    for name, p in whole_parameters(lm, named=rest):
        yield name, _merged(lm, name, p, held)


def _merged(lm: nn.Module, name: str, weight: Tensor, held: dict[str, Tensor]) -> Tensor:
    place = name.removesuffix(".weight")
    if f"{place}.{B}" not in held:
        return weight
    delta = held[f"{place}.{B}"] @ held[f"{place}.{A}"]
    return (weight.float() + lm.get_submodule(place).scale * delta).to(weight.dtype)


def masters(lm: nn.Module, stage: int) -> dict[str, Tensor]:
    """The adapters whole, in float32, on the CPU; all ranks call it."""
    named = [(name, p) for name, p in lm.named_parameters() if is_adapter(name)]
    return {name: whole(p, stage).float().cpu().clone() for name, p in named}


def merged_reader(lm: nn.Module, base: Fill, held: dict[str, Tensor]) -> Callable[[str], Tensor]:
    """What each weight is, in float32: the base's as its files have it, and the adapter added."""
    shapes = {n: getattr(p, "ds_shape", p.shape) for n, p in lm.named_parameters()}

    def read(name: str) -> Tensor:
        weight = torch.empty(shapes[name])
        base(name, 0, weight.view(-1))
        return _merged(lm, name, weight, held)

    return read


# -------------------------------------------------------------------------------------------------- on disk
def save_adapter(folder: Path, lora: Lora, held: dict[str, Tensor], base: str) -> dict[str, Sealed]:
    """Write the adapter as a folder that PEFT and vLLM read; the weights' size and hash."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({name.split(".")[-2] for name in held})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": lora.rank,
        "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": targets, "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    file = "adapter_model.safetensors"
    tensors = {f"base_model.model.{name}.weight": value for name, value in held.items()}
    return {f"{folder.name}/{file}": write_slices(folder / file, tensors)}


def fingerprint(folder: Path) -> str:
    """Tells a model folder from one whose weights are others: of each tensor its shape and first numbers."""
    slices, digest = Slices(folder), hashlib.sha256()
    for name in sorted(slices.names):
        shape = slices.shape(name)
        head = torch.empty(min(SAMPLE, torch.Size(shape).numel()))
        slices.read(name, 0, head)
        digest.update(f"{name} {shape}".encode() + head.numpy().tobytes())
    return digest.hexdigest()[:16]
