"""Dot-product attention: by torch's fused kernels, or step by step where the scores are needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["attend", "attend_with_scores", "causal_mask", "penalty", "window_mask"]

_KERNELS = {
    True: [SDPBackend.FLASH_ATTENTION],
    False: [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    dropout: float = 0.0,
    flash: bool | None = None,
) -> Tensor:
    """`softmax(scale * query @ key.mT) @ value` by `F.scaled_dot_product_attention`.

    Args:
        query: `(batch, heads, targets, size)`.
        key, value: `(batch, heads, sources, size)`; with fewer heads, each serves as many neighbouring queries.
        mask: `(batch, heads, targets, sources)` or what broadcasts to it: bools, False where a target must not attend
            (one that may attend to nothing gets zeros), or floats to add to the scores.
        scale: the factor of the scores.
        causal: whether no target may look at later sources; instead of a mask.
        dropout: the share of the scores to drop.
        flash: whether to use the flash kernel, and only that; torch chooses by default.
    """
    grouped = query.shape[1] != key.shape[1]
    if grouped and mask is not None:
        # Of the kernels that support groups, only the slowest supports masks.
        key, value, grouped = _repeat_heads(key, query), _repeat_heads(value, query), False
    with contextlib.nullcontext() if flash is None else sdpa_kernel(_KERNELS[flash]):
        return F.scaled_dot_product_attention(
            query, key, value, mask, dropout, is_causal=causal, scale=scale, enable_gqa=grouped
        )


def attend_with_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    dropout: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The same with a mask of bools, and the scores after the softmax, `(batch, heads, targets, sources)`.

    Args:
        query, key, value, mask, scale: as of `attend`.
        dropout: applied to the scores before they weigh the values, but not to those returned.
    """
    scores = (query * scale) @ _repeat_heads(key, query).transpose(-2, -1)
    if mask is None:
        scores = scores.softmax(-1)
    else:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
    return dropout(scores) @ _repeat_heads(value, query), scores


def penalty(mask: Tensor, amount: float, dtype: torch.dtype) -> Tensor:
    """The term to add to the scores: 0 where the mask is True, minus `amount` where it is False."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -amount)


def causal_mask(targets: int, sources: int, device: torch.device) -> Tensor:
    """`(targets, sources)`: True where the source is not later than the target."""
    return torch.ones(targets, sources, dtype=torch.bool, device=device).tril()


def window_mask(targets: int, sources: int, window: int, device: torch.device) -> Tensor:
    """`(targets, sources)`: True where the two are less than `window` apart."""
    distance = torch.arange(targets, device=device).unsqueeze(1) - torch.arange(sources, device=device)
    return distance.abs() < window


def _repeat_heads(tensor: Tensor, query: Tensor) -> Tensor:
    groups = query.shape[1] // tensor.shape[1]
    return tensor if groups == 1 else tensor.repeat_interleave(groups, 1)
