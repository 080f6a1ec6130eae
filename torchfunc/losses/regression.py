"""Losses that compare numbers (keras/src/losses/losses.py): the functions, and a class for each."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.config import epsilon
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.base import FunctionLoss
from torchfunc.losses.shapes import TensorLike, same_shape
from torchfunc.losses.weighting import Reduction

__all__ = [
    "CosineSimilarity",
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "cosine_similarity",
    "huber",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
]


def _squared(y_true: TensorLike, y_pred: TensorLike, reduction: str = "mean") -> Tensor:
    y_true, y_pred = same_shape("mean_squared_error", y_true, y_pred)
    return F.mse_loss(y_pred, y_true, reduction=reduction)


def _absolute(y_true: TensorLike, y_pred: TensorLike, reduction: str = "mean") -> Tensor:
    y_true, y_pred = same_shape("mean_absolute_error", y_true, y_pred)
    return F.l1_loss(y_pred, y_true, reduction=reduction)


def _huber(y_true: TensorLike, y_pred: TensorLike, delta: float, reduction: str = "mean") -> Tensor:
    y_true, y_pred = same_shape("huber", y_true, y_pred)
    return F.huber_loss(y_pred, y_true, reduction=reduction, delta=delta)


def mean_squared_error(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean((y_true - y_pred)²)` over the last axis: `(batch, ..., n)` twice -> `(batch, ...)`.

    >>> losses.mean_squared_error([[0.0, 0.0]], [[1.0, 3.0]])
    tensor([5.])
    """
    return _squared(y_true, y_pred, "none").mean(-1)


def mean_absolute_error(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean(|y_true - y_pred|)` over the last axis: `(batch, ..., n)` twice -> `(batch, ...)`.

    >>> losses.mean_absolute_error([[0.0, 0.0]], [[1.0, 3.0]])
    tensor([2.])
    """
    return _absolute(y_true, y_pred, "none").mean(-1)


def mean_absolute_percentage_error(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`100 * mean(|y_true - y_pred| / max(|y_true|, epsilon))`, in percent: `(batch, ..., n)` -> `(batch, ...)`.

    >>> losses.mean_absolute_percentage_error([[10.0, 4.0]], [[9.0, 5.0]])  # 10 and 25 percent
    tensor([17.5000])
    """
    y_true, y_pred = same_shape("mean_absolute_percentage_error", y_true, y_pred)
    return 100.0 * ((y_true - y_pred) / y_true.abs().clamp(min=epsilon())).abs().mean(-1)


def mean_squared_logarithmic_error(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean((log(y_true + 1) - log(y_pred + 1))²)`, negative values taken as 0: `(batch, ..., n)` -> `(batch, ...)`.

    >>> losses.mean_squared_logarithmic_error([[0.0]], [[1.0]])  # log(2) squared
    tensor([0.4805])
    """
    y_true, y_pred = same_shape("mean_squared_logarithmic_error", y_true, y_pred)
    return (y_pred.clamp(min=epsilon()).log1p() - y_true.clamp(min=epsilon()).log1p()).square().mean(-1)


def huber(y_true: TensorLike, y_pred: TensorLike, delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta` and linear beyond, mean over the last axis: -> `(batch, ...)`.

    >>> losses.huber([[0.0], [0.0]], [[0.5], [3.0]])
    tensor([0.1250, 2.5000])
    """
    return _huber(y_true, y_pred, delta, "none").mean(-1)


def log_cosh(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean(log(cosh(y_pred - y_true)))` over the last axis: `(batch, ..., n)` twice -> `(batch, ...)`.

    >>> losses.log_cosh([[0.0, 0.0]], [[0.0, 2.0]])
    tensor([0.6625])
    """
    y_true, y_pred = same_shape("log_cosh", y_true, y_pred)
    error = y_pred - y_true
    return (error + F.softplus(-2.0 * error) - math.log(2.0)).mean(-1)


def cosine_similarity(y_true: TensorLike, y_pred: TensorLike, axis: int = -1) -> Tensor:
    """Minus the cosine of the angle between target and prediction, -1 being the best; `axis` is reduced.

    Shape: `(batch, ..., n)` twice -> `(batch, ...)`.

    >>> losses.cosine_similarity([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [3.0, 4.0]])
    tensor([-1.0000, -0.6000])
    """
    y_true, y_pred = same_shape("cosine_similarity", y_true, y_pred)
    return -torch.sum(F.normalize(y_true, dim=axis, eps=epsilon()) * F.normalize(y_pred, dim=axis, eps=epsilon()), axis)


class MeanSquaredError(FunctionLoss):
    """`mean((y_true - y_pred)²)`. Arguments as for `Loss`.

    >>> losses.MeanSquaredError()([[0.0, 0.0]], [[1.0, 3.0]])
    tensor(5.)
    """

    _fused = staticmethod(_squared)

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "mean_squared_error",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(FunctionLoss):
    """`mean(|y_true - y_pred|)`. Arguments as for `Loss`.

    >>> losses.MeanAbsoluteError()([[0.0, 0.0]], [[1.0, 3.0]])
    tensor(2.)
    """

    _fused = staticmethod(_absolute)

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "mean_absolute_error",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(FunctionLoss):
    """`100 * mean(|y_true - y_pred| / |y_true|)`, in percent. Arguments as for `Loss`.

    >>> losses.MeanAbsolutePercentageError()([[10.0, 4.0]], [[9.0, 5.0]])
    tensor(17.5000)
    """

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "mean_absolute_percentage_error",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(FunctionLoss):
    """`mean((log(y_true + 1) - log(y_pred + 1))²)`. Arguments as for `Loss`.

    >>> losses.MeanSquaredLogarithmicError()([[0.0]], [[1.0]])
    tensor(0.4805)
    """

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "mean_squared_logarithmic_error",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class Huber(FunctionLoss):
    """Half the squared error for errors up to `delta`, linear beyond: less moved by outliers than the square.

    Args:
        delta: where it turns linear, in the units of the targets.
        reduction, name, dtype: as for `Loss`.

    >>> losses.Huber(delta=1.0, reduction=None)([[0.0], [0.0]], [[0.5], [3.0]])
    tensor([0.1250, 2.5000])
    """

    _fused = staticmethod(_huber)
    _unwritten = {"delta": 1.0}

    def __init__(
        self,
        delta: float = 1.0,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)


class LogCosh(FunctionLoss):
    """`mean(log(cosh(y_pred - y_true)))`: the square for small errors, linear for large ones.

    >>> losses.LogCosh()([[0.0]], [[2.0]])
    tensor(1.3250)
    """

    def __init__(
        self, reduction: Reduction = "sum_over_batch_size", name: str = "log_cosh", dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(log_cosh, reduction, name, dtype)


class CosineSimilarity(FunctionLoss):
    """Minus the cosine between target and prediction: -1 when they point the same way.

    Args:
        axis: the axis of the vectors.
        reduction, name, dtype: as for `Loss`.

    >>> losses.CosineSimilarity(reduction=None)([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [3.0, 4.0]])
    tensor([-1.0000, -0.6000])
    """

    _unwritten = {"axis": -1}

    def __init__(
        self,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)
