"""Sample weights, masks and reductions: from one loss a sample to one number (keras/src/losses/loss.py)."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from torchfunc.batch_parts import BatchPart
from torchfunc.losses.shapes import match_ranks

__all__ = [
    "MEANS",
    "Reduction",
    "apply_mask",
    "check_reduction",
    "divide_no_nan",
    "match_weight",
    "reduce_weighted",
    "trailing_axes",
]

Reduction: TypeAlias = str | None

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
"""The reductions that, without weights and masks, are the plain mean."""

_REDUCTIONS = (*MEANS, "sum", "none", None)


def check_reduction(reduction: Reduction) -> Reduction:
    """`reduction` itself. Raises ValueError when there is none of that name."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}.")
    return reduction


def divide_no_nan(total: Tensor | float, count: Tensor) -> Tensor:
    """`total / count`, and 0 (with gradient 0) where `count` is 0."""
    empty = count == 0
    return torch.where(empty, 0.0, total / torch.where(empty, 1.0, count))


def apply_mask(
    sample_weight: Tensor | None,
    mask: Tensor,
    reduction: Reduction,
    dtype: torch.dtype,
    part: BatchPart | None = None,
) -> Tensor:
    """Sample weights in which what the mask leaves out weighs nothing.

    Args:
        sample_weight: weights so far, or None for 1 everywhere.
        mask: True where a sample or timestep counts; `(batch,)`, `(batch, time)` ...
        reduction: under "mean" and "sum_over_batch_size" what is left is scaled by total / valid, so that the mean
            over everything comes out as the mean over what is left.
        dtype: of the result.
        part: as for `reduce_weighted`.

    >>> losses.apply_mask(None, torch.tensor([True, False]), "mean", torch.float32)
    tensor([2., 0.])
    """
    weight = mask.to(dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        valid = weight.sum()
        if part is None:
            weight = weight * divide_no_nan(mask.numel(), valid)
        else:
            weight = weight * divide_no_nan(mask.numel() * part.ratio, part.sum(valid))
    if sample_weight is None:
        return weight
    weight, sample_weight = match_ranks(weight, sample_weight.to(dtype))
    return trailing_axes(weight, sample_weight.ndim) * trailing_axes(sample_weight, weight.ndim)


def match_weight(name: str, values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values and weights with equal ranks, ready to be multiplied.

    A weight a sample, `(batch,)`, counts for all the sample's values `(batch, time)`.

    Raises:
        ValueError: the weights fit neither the values nor their leading axes.
    """
    given = tuple(weight.shape)
    values, weight = match_ranks(values, weight)
    extends = 0 < weight.ndim < values.ndim
    weight = trailing_axes(weight, values.ndim)
    if weight.ndim > values.ndim or any(w not in (1, v) for w, v in zip(weight.shape, values.shape, strict=True)):
        raise ValueError(
            f"{name}: sample_weight (with the mask, if there is one) has shape {given}, but there are values of "
            f"shape {tuple(values.shape)} to weigh. Give one weight per sample, shape {tuple(values.shape[:1])}, or "
            "one per value."
        )
    return values, weight.expand_as(values) if extends else weight


def reduce_weighted(
    name: str,
    values: Tensor,
    sample_weight: Tensor | None,
    mask: Tensor | None,
    reduction: Reduction,
    part: BatchPart | None = None,
) -> Tensor:
    """Weigh and reduce the losses of single samples.

    Args:
        name: the loss, for messages.
        values: losses, `(batch,)` or `(batch, time, ...)`.
        sample_weight: `(batch,)` or the shape of `values`, or None.
        mask: True where a value counts, or None.
        reduction: "sum_over_batch_size" and "mean" divide the weighted sum by the number of values,
            "mean_with_sample_weight" by the sum of the weights, "sum" does not divide; None and "none" do not sum.
        part: if other processes have other rows of the batch, the part that these are: the loss is such that the mean
            over all processes, by their rows, is that of the whole batch.
    """
    weight = sample_weight
    if mask is not None:
        weight = apply_mask(weight, mask, reduction, values.dtype, part)
    if weight is not None:
        values, weight = match_weight(name, values, weight.to(values.dtype))
        values = values * weight
    if reduction is None or reduction == "none":
        return values
    if reduction == "mean_with_sample_weight" and weight is not None:
        if part is None:
            return divide_no_nan(values.sum(), weight.sum())
        return divide_no_nan(values.sum() * part.ratio, part.sum(weight.sum()))
    if reduction == "sum" or values.numel() == 0:
        return values.sum() if part is None else values.sum() * part.ratio
    return values.mean()


def trailing_axes(weight: Tensor, ndim: int) -> Tensor:
    """`weight` with axes of size 1 at its end, up to `ndim` axes."""
    return weight.reshape(weight.shape + (1,) * (ndim - weight.ndim)) if weight.ndim < ndim else weight
