"""Losses that ask for a margin (keras/src/losses/losses.py): the functions, and a class for each."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike
from torchfunc.losses.base import FunctionLoss
from torchfunc.losses.shapes import TensorLike, same_shape
from torchfunc.losses.weighting import Reduction

__all__ = ["CategoricalHinge", "Hinge", "SquaredHinge", "categorical_hinge", "hinge", "squared_hinge"]


def _shortfall(name: str, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`max(1 - y_true * y_pred, 0)`, with labels 0 and 1 taken for -1 and 1 where the batch holds no others."""
    y_true, y_pred = same_shape(name, y_true, y_pred)
    are_binary = ((y_true == 0) | (y_true == 1)).all()
    y_true = torch.where(are_binary, 2.0 * y_true - 1.0, y_true)
    return (1.0 - y_true * y_pred).clamp(min=0.0)


def hinge(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean(max(1 - y_true * y_pred, 0))` over the last axis: `(batch, ..., n)` twice -> `(batch, ...)`.

    Args:
        y_true: labels -1 and 1. If all of them are 0 or 1, 0 stands for -1.
        y_pred: any numbers; the sign is the class, the size the margin.

    >>> losses.hinge([[1.0, -1.0]], [[0.5, 0.5]])
    tensor([1.])
    """
    return _shortfall("hinge", y_true, y_pred).mean(-1)


def squared_hinge(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean(max(1 - y_true * y_pred, 0)²)` over the last axis; labels as for `hinge`: -> `(batch, ...)`.

    >>> losses.squared_hinge([[1.0, -1.0]], [[0.0, 1.0]])
    tensor([2.5000])
    """
    return _shortfall("squared_hinge", y_true, y_pred).square().mean(-1)


def categorical_hinge(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`max(1 + wrong - right, 0)` with `right = sum(y_true * y_pred)` and `wrong = max((1 - y_true) * y_pred)`.

    Args:
        y_true: one-hot labels, `(batch, ..., classes)`.
        y_pred: scores of the classes, `(batch, ..., classes)`.

    Returns:
        `(batch, ...)`

    >>> losses.categorical_hinge([[0.0, 1.0, 0.0]], [[0.5, 1.0, 0.25]])
    tensor([0.5000])
    """
    y_true, y_pred = same_shape("categorical_hinge", y_true, y_pred)
    right = (y_true * y_pred).sum(-1)
    wrong = ((1.0 - y_true) * y_pred).amax(-1)
    return (wrong - right + 1.0).clamp(min=0.0)


class Hinge(FunctionLoss):
    """`mean(max(1 - y_true * y_pred, 0))`, labels -1 and 1 (or 0 and 1). Arguments as for `Loss`.

    >>> losses.Hinge()([[1.0, -1.0]], [[0.5, 0.5]])
    tensor(1.)
    """

    target_form = "labels"

    def __init__(
        self, reduction: Reduction = "sum_over_batch_size", name: str = "hinge", dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(FunctionLoss):
    """`mean(max(1 - y_true * y_pred, 0)²)`, labels -1 and 1 (or 0 and 1). Arguments as for `Loss`.

    >>> losses.SquaredHinge()([[1.0, -1.0]], [[0.0, 1.0]])
    tensor(2.5000)
    """

    target_form = "labels"

    def __init__(
        self, reduction: Reduction = "sum_over_batch_size", name: str = "squared_hinge", dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(squared_hinge, reduction, name, dtype)


class CategoricalHinge(FunctionLoss):
    """How far the true class's score stays short of the best other one plus 1. Arguments as for `Loss`.

    >>> losses.CategoricalHinge()([[0.0, 1.0, 0.0]], [[0.5, 1.0, 0.25]])
    tensor(0.5000)
    """

    target_form = "one_hot"

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "categorical_hinge",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(categorical_hinge, reduction, name, dtype)
