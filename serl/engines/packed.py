"""Attention over samples that lie end to end in one row: each sees itself alone, and nothing is padded.

Flash attention where its package is installed, torch's own kernel for variable lengths on other GPUs, and
anywhere else one sample after the other. Shapes: H query heads and K key heads over L tokens, of D numbers.
"""

from functools import cache

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

PACKED = "packed"  # our name among transformers' attentions; it gets no mask there, as it needs none


def attention(dtype: torch.dtype, device: torch.device, packing: bool | None = None) -> str:
    """transformers' name of the attention to use: a packed one where a kernel for it is there, or always, or
    never, as `packing` says.
    """
    half = device.type == "cuda" and dtype != torch.float32
    if packing is False or (packing is None and not half):
        return "sdpa"
    if half and is_flash_attn_2_available():
        return "flash_attention_2"
    return PACKED if packing or _kernel(device) else "sdpa"


def is_packed(lm: PreTrainedModel) -> bool:
    """Whether the model's attention takes samples end to end."""
    return lm.config._attn_implementation in ("flash_attention_2", PACKED)


@cache
def _kernel(device: torch.device) -> bool:
    """Whether torch's kernel for variable lengths runs on this GPU."""
    try:
        from torch.nn.attention import varlen  # noqa: F401  not in every torch
    except ImportError:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def packed_attention(
    module: nn.Module,
    query_1HLD: Tensor,
    key_1KLD: Tensor,
    value_1KLD: Tensor,
    attention_mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    softcap: float | None = None,
    **unread: object,
) -> tuple[Tensor, None]:
    """The output (1, L, H, D). `cu_seq_lens_q` is where each sample begins, and the end; `max_length_q` the
    longest; without them all is one sample. As transformers calls its attentions.
    """
    if softcap is not None:
        raise ValueError("train.packing: this model caps its attention's scores, which no kernel here does")
    starts, longest = cu_seq_lens_q, max_length_q
    if (
        starts is not None
        and query_1HLD.is_cuda
        and query_1HLD.dtype != torch.float32
        and _kernel(query_1HLD.device)
    ):
        from torch.nn.attention.varlen import varlen_attn

        sides = (x_1HLD[0].transpose(0, 1).contiguous() for x_1HLD in (query_1HLD, key_1KLD, value_1KLD))
        before = -1 if sliding_window is None else sliding_window - 1
        how = {"scale": scaling, "window_size": (before, 0), "enable_gqa": True}
        return varlen_attn(*sides, starts, starts, longest, longest, **how)[None], None
    heads = query_1HLD.shape[1] // key_1KLD.shape[1]
    sides = (query_1HLD, key_1KLD.repeat_interleave(heads, 1), value_1KLD.repeat_interleave(heads, 1))
    lengths = [query_1HLD.shape[2]] if starts is None else starts.diff().tolist()
    parts = zip(*(x_1HLD.split(lengths, dim=2) for x_1HLD in sides), strict=True)
    out = [_one(*part, dropout, scaling, sliding_window) for part in parts]
    return torch.cat(out, dim=2).transpose(1, 2), None


def _one(
    query_1HLD: Tensor,
    key_1HLD: Tensor,
    value_1HLD: Tensor,
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """Of a single sample."""
    long, seen_LL = query_1HLD.shape[2], None
    if sliding_window is not None and long > sliding_window:
        seen_LL = torch.ones(long, long, dtype=torch.bool, device=query_1HLD.device).tril()
        seen_LL = seen_LL.triu(1 - sliding_window)
    return nn.functional.scaled_dot_product_attention(
        query_1HLD, key_1HLD, value_1HLD, seen_LL, dropout, is_causal=seen_LL is None, scale=scaling
    )


AttentionInterface.register(PACKED, packed_attention)
