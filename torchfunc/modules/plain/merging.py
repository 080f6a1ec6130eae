"""Merges of several tensors in which masked steps do not count."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["extremum", "masked_multiply"]


@torch.fx.wrap
def masked_multiply(inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
    """The product; steps masked in one input count as 1, those masked in all inputs give 0."""
    pairs = zip(inputs, masks, strict=True)
    output = functools.reduce(torch.mul, [x if m is None else torch.where(m, x, 1) for x, m in pairs])
    given = [mask for mask in masks if mask is not None]
    return output if len(given) < len(masks) else torch.where(functools.reduce(torch.logical_or, given), output, 0)


@torch.fx.wrap
def extremum(inputs: Sequence[Tensor], masks: Sequence[Tensor | None], largest: bool) -> Tensor:
    """The maximum or minimum; where only some inputs are masked, the others decide."""
    function = torch.maximum if largest else torch.minimum
    (output, *others), (known, *masks) = inputs, masks
    for x, own in zip(others, masks, strict=True):
        x = x if own is None else torch.where(own, x, output)
        output = function(output if known is None else torch.where(known, output, x), x)
        known = None if own is None or known is None else torch.logical_or(known, own)
    return output
