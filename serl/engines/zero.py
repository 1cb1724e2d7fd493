"""DeepSpeed's engine around a module, and weights that exist only as the shares of the ranks. The only import
of deepspeed.

The settings that are not the configuration's are here: buckets, what is persistent, the fused AdamW of torch,
for which no compiler is called. Nothing here knows what is trained.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from serl.config.training import Training
from serl.engines.ranks import Ranks

BUCKET = 2**26  # weights whose gradients are added up at once
SHARD_BYTES = 2**28  # of weights that exist whole at once while they are split
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NAMES = {"float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a module is to be kept: the ZeRO stage, what it computes in, and over which ranks."""

    stage: int
    dtype: torch.dtype
    settings: Training
    ranks: Ranks

    @property
    def compiled(self) -> bool:
        """Whether layers are compiled; at stage 3 DeepSpeed's hooks are between them and their weights."""
        return self.settings.compile and self.ranks.device.type == "cuda" and self.stage != 3


def compute_dtype(settings: Training, device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and float32 on CPUs, unless the configuration says otherwise."""
    if settings.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[settings.dtype]


def plan_of(settings: Training, ranks: Ranks) -> Plan:
    """As configured. Stage 0 in bfloat16 becomes 1: DeepSpeed's corrects Adam's bias wrongly, its first step
    is three quarters of the right one.
    """
    dtype = compute_dtype(settings, ranks.device)
    stage = settings.zero if dtype == torch.float32 else max(settings.zero, 1)
    return Plan(stage=stage, dtype=dtype, settings=settings, ranks=ranks)


def materialise(lm: nn.Module, plan: Plan) -> None:
    """Give a model without weights room for them, on its device: whole, or at stage 3 this rank's share;
    zeros in either case.
    """
    device = plan.ranks.device
    made: dict[int, nn.Parameter] = {}  # one for those that are tied, however often they occur
    waiting: list[nn.Parameter] = []
    for module in lm.modules():
        for name, p in list(module._parameters.items()):
            if p is None:
                continue
            if id(p) not in made:
                made[id(p)] = nn.Parameter(torch.zeros(p.shape, dtype=plan.dtype, device=device))
                waiting.append(made[id(p)])
            module._parameters[name] = made[id(p)]
        for name, buffer in list(module._buffers.items()):
            module._buffers[name] = None if buffer is None else buffer.to(device)
        if plan.stage == 3 and sum(p.nbytes for p in waiting) >= SHARD_BYTES:
            _shard(waiting, plan)
            waiting = []
    if plan.stage == 3:
        _shard(waiting, plan)


def room_for(shapes: Sequence[tuple[int, ...]], plan: Plan) -> list[nn.Parameter]:
    """Parameters of zeros beside those of a model that was materialised."""
    device = plan.ranks.device
    made = [nn.Parameter(torch.zeros(shape, dtype=plan.dtype, device=device)) for shape in shapes]
    if plan.stage == 3:
        _shard(made, plan)
    return made


def _shard(parameters: Sequence[nn.Parameter], plan: Plan) -> None:
    """Leave each rank its share of these parameters."""
    if parameters:
        config = _config(sum(p.numel() for p in parameters), plan)
        _deepspeed(plan.ranks).zero.Init(module=nn.ParameterList(parameters), config_dict_or_path=config)


def shares(lm: nn.Module, plan: Plan) -> Iterator[tuple[str, int, Tensor]]:
    """(name, first element, elements) of what this rank keeps of each weight that the forward pass reads,
    padding left out.
    """
    for name, p in lm.named_parameters():
        if plan.stage == 3:
            start = plan.ranks.rank * p.ds_tensor.numel()
            if p.ds_numel > start:
                yield name, start, p.ds_tensor.data[: p.ds_numel - start]
        else:
            yield name, 0, p.data.view(-1)


def training_engine(module: nn.Module, plan: Plan):
    """DeepSpeed's engine that trains the module."""
    optimizer = plan.settings.optimizer
    adam = torch.optim.AdamW(
        _groups(module, optimizer.weight_decay), lr=optimizer.lr, betas=optimizer.betas, fused=True
    )
    config = _config(_numel(module), plan)
    engine = _deepspeed(plan.ranks).initialize(model=module, optimizer=adam, config=config)[0]
    if plan.ranks.size == 1 and plan.stage == 1 and plan.dtype == torch.bfloat16:
        engine.enable_backward_allreduce = False  # of one rank: two copies of all gradients
    if hasattr(engine.optimizer, "fp32_groups_has_gradients"):
        _add_in_one_pass(engine.optimizer)
    return engine


def _add_in_one_pass(zero) -> None:
    """Have each bfloat16 gradient added to its float32 sum as it is; DeepSpeed copies it to float32 first."""

    def add(p: nn.Parameter, group: int, index: int, clear_lp_grads: bool) -> None:
        if p.grad is not None:
            p._hp_grad = zero.fp32_groups_gradients[group][index]
            p._hp_grad.add_(p.grad.reshape(-1))
            zero.fp32_groups_has_gradients[group][index] = True

    zero._update_hp_grad = add


def frozen_engine(module: nn.Module, plan: Plan):
    """DeepSpeed's engine that only runs a module whose weights are split; each layer is gathered when its
    turn comes.
    """
    config = _config(_numel(module), plan)
    config["zero_optimization"] |= {"stage3_param_persistence_threshold": 0}
    config["zero_optimization"].pop("offload_optimizer", None)
    engine = _deepspeed(plan.ranks).initialize(model=module, config=config)[0]
    engine.eval()
    return engine


def whole(p: nn.Parameter, stage: int) -> Tensor:
    """The whole float32 master of a parameter that ZeRO may have split; all ranks call it."""
    from deepspeed.utils import safe_get_full_fp32_param

    return p.detach() if stage == 0 else safe_get_full_fp32_param(p)


def _numel(module: nn.Module) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())


def _config(num_weights: int, plan: Plan) -> dict:
    settings, on_gpu = plan.settings, plan.ranks.device.type == "cuda"
    zero = {
        "stage": plan.stage,
        "reduce_bucket_size": min(num_weights, BUCKET),
        "allgather_bucket_size": min(num_weights, 2**28),
        "overlap_comm": on_gpu,
        "stage3_prefetch_bucket_size": min(num_weights, BUCKET),
        "stage3_param_persistence_threshold": min(num_weights // 100, 100_000),
    }
    if settings.optimizer.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    zero |= settings.deepspeed
    config = {
        "train_batch_size": plan.ranks.size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": settings.optimizer.grad_clip if plan.stage else 0.0,
        "steps_per_print": 2**31,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "communication_data_type": NAMES[settings.reduce_dtype],
    }
    if plan.dtype == torch.bfloat16:
        # each gradient is added to its float32 sum as soon as it is there, and let go
        bf16 = {"enabled": True, "immediate_grad_update": True}
        config |= {"bf16": bf16, "data_types": {"grad_accum_dtype": "fp32"}}
    return config


def _deepspeed(ranks: Ranks) -> ModuleType:
    """deepspeed, told what it would find out by compiling or by asking MPI."""
    if ranks.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if ranks.device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return deepspeed


def _groups(module: nn.Module, decay: float) -> list[dict]:
    """What is trained; weight decay acts on matrices, not on norms and biases."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if decay == 0:
        return [{"params": trained, "weight_decay": 0.0}]
    sizes = {p: len(getattr(p, "ds_shape", p.shape)) for p in trained}
    matrices = [p for p, ndim in sizes.items() if ndim >= 2]
    others = [p for p, ndim in sizes.items() if ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
