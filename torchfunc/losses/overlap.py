"""Losses of overlapping regions, for segmentation (keras/src/losses/losses.py): the functions, and a class for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from torchfunc.config import epsilon
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.base import FunctionLoss
from torchfunc.losses.shapes import TensorLike, same_shape
from torchfunc.losses.weighting import Reduction

__all__ = ["Dice", "Tversky", "dice", "tversky"]

Axes: TypeAlias = int | Sequence[int] | None


def _sum(values: Tensor, axis: Axes) -> Tensor:
    return values.sum(axis if axis is None or isinstance(axis, int) else tuple(axis))


def dice(y_true: TensorLike, y_pred: TensorLike, axis: Axes = None) -> Tensor:
    """`1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred))`: 0 where the two regions are one.

    Args:
        y_true: labels in [0, 1], `(batch, ..., classes)`.
        y_pred: probabilities of the same shape.
        axis: what is summed: `(1, 2, 3)` gives one loss for each image `(batch, height, width, classes)`, None one
            number for the whole batch.

    >>> losses.dice([[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 0.0]])  # half of each is shared
    tensor(0.5000)
    """
    y_true, y_pred = same_shape("dice", y_true, y_pred)
    shared = _sum(y_true * y_pred, axis)
    return 1.0 - 2.0 * shared / (_sum(y_true, axis) + _sum(y_pred, axis) + epsilon())


def tversky(y_true: TensorLike, y_pred: TensorLike, alpha: float = 0.5, beta: float = 0.5, axis: Axes = None) -> Tensor:
    """`1 - shared / (shared + alpha * extra + beta * missed)`; with both 0.5 it is the Dice loss.

    `shared = sum(y_true * y_pred)`, `extra = sum((1 - y_true) * y_pred)`, `missed = sum(y_true * (1 - y_pred))`, as the
    paper and Keras' documentation have it (Keras 3.15 computes it with `alpha` and `beta` the other way round).
    Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks" (2017).

    Args:
        y_true: labels in [0, 1], `(batch, ..., classes)`.
        y_pred: probabilities of the same shape.
        alpha: what a part outside the region costs (a false positive).
        beta: what a missed part of it costs (a false negative).
        axis: what is summed, as for `dice`.

    >>> losses.tversky([[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]], alpha=0.1, beta=0.9)
    tensor(0.4737)
    """
    y_true, y_pred = same_shape("tversky", y_true, y_pred)
    shared = _sum(y_true * y_pred, axis)
    missed = _sum((1.0 - y_pred) * y_true, axis)
    extra = _sum(y_pred * (1.0 - y_true), axis)
    return 1.0 - shared / (shared + extra * alpha + missed * beta + epsilon())


class _OverlapLoss(FunctionLoss):
    _per_sample_advice = "Give `axis` all axes but the first, (1, 2, 3) for images: then there is one loss a sample."


class Dice(_OverlapLoss):
    """`1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred))`: how far two regions are from being one.

    Args:
        reduction, name, dtype: as for `Loss`.
        axis: what is summed: `(1, 2, 3)` gives one loss for each image, which can then be weighed; None one number
            for the whole batch.

    >>> masks, found = torch.ones(2, 4, 4, 1), torch.zeros(2, 4, 4, 1)
    >>> losses.Dice(axis=(1, 2, 3), reduction=None)(masks, found)
    tensor([1., 1.])
    """

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "dice",
        axis: Axes = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(dice, reduction, name, dtype, axis=axis)
        self.axis = axis


class Tversky(_OverlapLoss):
    """The Dice loss with what is missed and what is too much at different prices.

    Args:
        alpha: what a part outside the region costs (a false positive).
        beta: what a missed part of it costs (a false negative).
        reduction, name, dtype: as for `Loss`.
        axis: what is summed, as for `Dice`.

    >>> losses.Tversky(alpha=0.1, beta=0.9)([[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]])
    tensor(0.4737)
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "tversky",
        axis: Axes = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)
        self.alpha, self.beta, self.axis = alpha, beta, axis
