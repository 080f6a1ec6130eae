"""Means over steps: of the weights (`use_ema`) and of gradients (`gradient_accumulation_steps`)."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfunc.schedules import Scalar

__all__ = ["copy_values", "mean_of_sums", "overwrite", "update_averages"]


def update_averages(averages: list[Tensor], weights: list[Tensor], momentum: float, iterations: Scalar) -> None:
    """Move the averages towards the weights; at the first step they become the weights.

    Args:
        averages: one for each weight, changed in place.
        weights: what is averaged.
        momentum: how much of the old average stays.
        iterations: the steps made before this one, as a number or a tensor of shape ().
    """
    if not isinstance(iterations, Tensor):
        torch._foreach_lerp_(averages, weights, 1 - momentum if iterations else 1.0)
        return
    first = iterations == 0
    for average, moved, weight in zip(
        averages, torch._foreach_lerp(averages, weights, 1 - momentum), weights, strict=True
    ):
        average.copy_(torch.where(first, weight, moved))


def overwrite(weights: list[Tensor], averages: list[Tensor], frequency: int, iterations: Scalar) -> None:
    """Put the averages in the weights' place if this step is one that the frequency asks for."""
    due = (iterations + 1) % frequency == 0
    if isinstance(due, Tensor):
        for weight, average in zip(weights, averages, strict=True):
            weight.copy_(torch.where(due, average, weight))
    elif due:
        for weight, average in zip(weights, averages, strict=True):
            weight.copy_(average)


def mean_of_sums(sums: list[Tensor], gradients: list[Tensor], steps: int) -> list[Tensor]:
    """Add gradients to their sums, and give the means over `steps`."""
    torch._foreach_add_(sums, gradients)
    return list(torch._foreach_div(sums, float(steps)))


def copy_values(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Give tensors the values of others. (Not by one call for all, which sharded weights do not know.)"""
    with torch.no_grad():
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)
