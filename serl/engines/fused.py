"""What makes a training step faster and computes the same: few passes over logits, small kernels fused.

An exact gradient of log-probabilities from the logits themselves, and torch.compile where there is a GPU.
Shapes as in `model`: C tokens, D hidden, V vocabulary; a block is as many tokens as have BLOCK_BYTES of
logits in float32.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.modeling_layers import GradientCheckpointingLayer

BLOCK_BYTES = 2**28


def log_probability(logit_CV: Tensor, target_C: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of the targets, in float32, and the logarithm of what all exponentials add up to."""
    scaled_CV = _scaled(logit_CV, temperature)
    total_C = scaled_CV.logsumexp(-1)
    return scaled_CV.gather(-1, target_C[:, None])[:, 0] - total_C, total_C


def fall_(logit_CV: Tensor, total_C: Tensor, grad_C: Tensor, temperature: float) -> None:
    """In place, from logits to the gradient in them of log-probabilities of other tokens, times `grad_C`."""
    p_CV = (_scaled(logit_CV, temperature) - total_C[:, None]).exp()
    logit_CV.copy_(p_CV * (-grad_C / temperature)[:, None])


def plain_log_probability(logit_CV: Tensor, target_C: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """`log_probability` as torch's own kernels are fastest at it, where nothing is compiled."""
    scaled_CV, where_C1 = _scaled(logit_CV, temperature), target_C[:, None]
    logp_C = scaled_CV.log_softmax(-1).gather(-1, where_C1)[:, 0]
    return logp_C, scaled_CV.gather(-1, where_C1)[:, 0] - logp_C


def plain_fall_(logit_CV: Tensor, total_C: Tensor, grad_C: Tensor, temperature: float) -> None:
    """`fall_`, likewise."""
    p_CV = _scaled(logit_CV, temperature).softmax(-1)
    logit_CV.copy_(p_CV.mul_((-grad_C / temperature)[:, None]))


def _scaled(logit_CV: Tensor, temperature: float) -> Tensor:
    return logit_CV.float() if temperature == 1.0 else logit_CV.float() / temperature


class Pieces:
    """The two functions that read logits, as they are or compiled to one kernel each."""

    def __init__(self) -> None:
        self.log_probability: Callable[..., tuple[Tensor, Tensor]] = plain_log_probability
        self.fall_: Callable[..., None] = plain_fall_

    def compile(self, backend: str) -> None:
        self.log_probability = torch.compile(log_probability, dynamic=True, backend=backend)
        self.fall_ = torch.compile(fall_, dynamic=True, backend=backend)


class TargetLogProbs(torch.autograd.Function):
    """The log-probabilities of targets under an output layer.

    Logits are kept in their type, and the backward pass needs no room beside them.
    """

    @staticmethod
    def forward(ctx, hidden_CD, weight, bias, target_C, temperature, pieces, bend):
        logit_CV = nn.functional.linear(hidden_CD, weight, bias)
        for rows in _blocks(logit_CV) if bend.cap is not None else ():
            bend.bend_(logit_CV[rows])
        found = [
            pieces.log_probability(logit_CV[rows], target_C[rows], temperature) for rows in _blocks(logit_CV)
        ]
        if not found:
            found = [plain_log_probability(logit_CV, target_C, temperature)]
        logp_C, total_C = (torch.cat(parts) for parts in zip(*found))
        ctx.save_for_backward(hidden_CD, weight, logit_CV, target_C, logp_C, total_C)
        ctx.temperature, ctx.pieces, ctx.bend, ctx.biased = temperature, pieces, bend, bias is not None
        return logp_C

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_C):
        hidden_CD, weight, logit_CV, target_C, logp_C, total_C = ctx.saved_tensors
        where_C1, capped = target_C[:, None], ctx.bend.cap is not None
        rise_C = -logp_C.expm1() * grad_C / ctx.temperature  # of targets: from 1 - p, not from a rounded -p
        if capped:
            rise_C = rise_C * ctx.bend.slope(logit_CV.gather(-1, where_C1)[:, 0])
        for rows in _blocks(logit_CV):
            slope_CV = ctx.bend.slope(logit_CV[rows]) if capped else None
            ctx.pieces.fall_(logit_CV[rows], total_C[rows], grad_C[rows], ctx.temperature)
            if slope_CV is not None:
                logit_CV[rows].mul_(slope_CV)
        logit_CV.scatter_(-1, where_C1, rise_C[:, None].to(logit_CV.dtype))
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        return (
            logit_CV @ weight if for_hidden else None,
            logit_CV.T @ hidden_CD if for_weight else None,
            logit_CV.sum(0) if for_bias and ctx.biased else None,
            None,
            None,
            None,
            None,
        )


def _blocks(logit_CV: Tensor) -> Iterator[slice]:
    num_tokens, size = logit_CV.shape
    block = max(1, BLOCK_BYTES // (4 * size))
    return (slice(i, i + block) for i in range(0, num_tokens, block))


def compile_layers(lm: nn.Module, backend: str) -> None:
    """Have every layer compiled when it first runs, for any lengths: once with gradients, once without."""
    for module in lm.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(dynamic=True, backend=backend)
