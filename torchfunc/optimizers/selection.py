"""Undoing a step, or a part of it: what a graph without branches does instead of skipping it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["copies_of", "keep_if"]


def copies_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, bit for bit."""
    return [tensor.detach().clone() for tensor in tensors]


def keep_if(condition: Tensor, tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Give the tensors back the values that they had before, unless `condition`, a tensor of shape (), is true."""
    for tensor, old in zip(tensors, before, strict=True):
        tensor.copy_(torch.where(condition, tensor, old))
