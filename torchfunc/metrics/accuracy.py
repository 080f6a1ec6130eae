"""Shares of right answers (keras/src/metrics/accuracy_metrics.py): the functions, and a class for each.

The functions return 1.0 for a right answer and 0.0 for a wrong one, in `config.floatx()`. The classes count what the
private ones say, True or False, which takes fewer kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.losses.shapes import TensorLike, class_indices, same_shape
from torchfunc.metrics.reduction import FunctionMetric

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
]


def _as_float(matches: Tensor) -> Tensor:
    return matches.to(as_dtype(floatx()))


def _equal(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    y_true, y_pred = same_shape("accuracy", y_true, y_pred)
    return y_true == y_pred


def accuracy(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """Where targets and predictions are equal, `(batch, ...)` twice -> `(batch, ...)`."""
    return _as_float(_equal(y_true, y_pred))


def _on_one_side(y_true: TensorLike, y_pred: TensorLike, threshold: float = 0.5) -> Tensor:
    y_true, y_pred = same_shape("binary_accuracy", y_true, y_pred)
    return y_true == (y_pred > threshold)


def binary_accuracy(y_true: TensorLike, y_pred: TensorLike, threshold: float = 0.5) -> Tensor:
    """Where `y_pred > threshold` is what the target, 0 or 1, says: `(batch, ...)` twice -> `(batch, ...)`.

    >>> metrics.binary_accuracy([[1, 1], [0, 0]], [[0.9, 0.4], [0.1, 0.2]])
    tensor([[1., 0.],
            [1., 1.]])
    """
    return _as_float(_on_one_side(y_true, y_pred, threshold))


def _of_one_class(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    y_true, y_pred = same_shape("categorical_accuracy", y_true, y_pred)
    return y_true.argmax(-1) == y_pred.argmax(-1)


def categorical_accuracy(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """Where the largest prediction is a one-hot target's class: `(batch, ..., classes)` twice -> `(batch, ...)`.

    >>> metrics.categorical_accuracy([[0, 1], [1, 0]], [[0.2, 0.8], [0.4, 0.6]])
    tensor([1., 0.])
    """
    return _as_float(_of_one_class(y_true, y_pred))


def _of_this_class(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    y_true, y_pred = class_indices("sparse_categorical_accuracy", y_true, y_pred, for_one_hot="categorical_accuracy")
    return y_pred.argmax(-1) == y_true


def sparse_categorical_accuracy(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """Where the largest prediction is the class whose index the target is.

    Args:
        y_true: class indices, `(batch, ...)` or `(batch, ..., 1)`; floats that hold integers are allowed.
        y_pred: `(batch, ..., classes)`, probabilities or logits.

    Returns:
        `(batch, ...)`

    Raises:
        ValueError: there is not one index for each prediction.

    >>> metrics.sparse_categorical_accuracy([1, 0], [[0.2, 0.8], [0.4, 0.6]])
    tensor([1., 0.])
    """
    return _as_float(_of_this_class(y_true, y_pred))


def _of_one_of_k(y_true: TensorLike, y_pred: TensorLike, k: int = 5) -> Tensor:
    y_true, y_pred = same_shape("top_k_categorical_accuracy", y_true, y_pred)
    return _of_this_of_k(y_true.argmax(-1), y_pred, k)


def top_k_categorical_accuracy(y_true: TensorLike, y_pred: TensorLike, k: int = 5) -> Tensor:
    """Where the class of a one-hot target is among the `k` largest: `(batch, ..., classes)` twice -> `(batch, ...)`.

    >>> metrics.top_k_categorical_accuracy([[0, 0, 1], [1, 0, 0]], [[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]], k=2)
    tensor([1., 0.])
    """
    return _as_float(_of_one_of_k(y_true, y_pred, k))


def _of_this_of_k(y_true: TensorLike, y_pred: TensorLike, k: int = 5, from_sorted_ids: bool = False) -> Tensor:
    y_true, y_pred = class_indices(
        "sparse_top_k_categorical_accuracy", y_true, y_pred, for_one_hot="top_k_categorical_accuracy"
    )
    target = y_true.unsqueeze(-1)
    if from_sorted_ids:
        return (y_pred[..., :k] == target).any(-1)
    k = min(k, y_pred.shape[-1])
    worst = torch.topk(y_pred, k, dim=-1).values[..., -1]
    return y_pred.gather(-1, target.long()).squeeze(-1) >= worst


def sparse_top_k_categorical_accuracy(
    y_true: TensorLike, y_pred: TensorLike, k: int = 5, from_sorted_ids: bool = False
) -> Tensor:
    """Where the class whose index the target is is among the `k` largest predictions.

    Args:
        y_true: class indices, `(batch, ...)` or `(batch, ..., 1)`.
        y_pred: `(batch, ..., classes)`, probabilities or logits; with `from_sorted_ids` class indices, best first.
        k: how many count. Equal predictions share a place.
        from_sorted_ids: what `y_pred` holds.

    Returns:
        `(batch, ...)`

    Raises:
        ValueError: there is not one index for each prediction.

    >>> metrics.sparse_top_k_categorical_accuracy([2, 0], [[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]], k=2)
    tensor([1., 0.])
    """
    return _as_float(_of_this_of_k(y_true, y_pred, k, from_sorted_ids))


class Accuracy(FunctionMetric):
    """How often predictions equal targets. Arguments as for `Metric`.

    >>> metrics.Accuracy()([1, 2, 3, 4], [1, 2, 3, 0])
    tensor(0.7500)
    """

    direction = "up"

    def __init__(self, name: str = "accuracy", dtype: DTypeLike | None = None) -> None:
        super().__init__(_equal, name, dtype)


class BinaryAccuracy(FunctionMetric):
    """How often predictions fall on the right side of a threshold.

    Args:
        name, dtype: as for `Metric`.
        threshold: above it a prediction means 1, otherwise 0.

    >>> metrics.BinaryAccuracy(threshold=0.5)([1, 1, 0, 0], [0.9, 0.4, 0.1, 0.2])
    tensor(0.7500)
    """

    direction = "up"

    def __init__(self, name: str = "binary_accuracy", dtype: DTypeLike | None = None, threshold: float = 0.5) -> None:
        super().__init__(_on_one_side, name, dtype, threshold=threshold)
        self.threshold = threshold


class CategoricalAccuracy(FunctionMetric):
    """How often the largest prediction is the class of a one-hot target. Arguments as for `Metric`.

    >>> metrics.CategoricalAccuracy()([[0, 1], [1, 0]], [[0.2, 0.8], [0.4, 0.6]])
    tensor(0.5000)
    """

    direction = "up"

    def __init__(self, name: str = "categorical_accuracy", dtype: DTypeLike | None = None) -> None:
        super().__init__(_of_one_class, name, dtype)


class SparseCategoricalAccuracy(FunctionMetric):
    """How often the largest prediction is the class whose index the target is. Arguments as for `Metric`.

    >>> metrics.SparseCategoricalAccuracy()([1, 0], [[0.2, 0.8], [0.4, 0.6]])
    tensor(0.5000)
    """

    direction = "up"

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: DTypeLike | None = None) -> None:
        super().__init__(_of_this_class, name, dtype)


class TopKCategoricalAccuracy(FunctionMetric):
    """How often the class of a one-hot target is among the `k` largest predictions.

    Args:
        k: how many count.
        name, dtype: as for `Metric`.

    >>> metrics.TopKCategoricalAccuracy(k=2)([[0, 0, 1], [1, 0, 0]], [[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
    tensor(0.5000)
    """

    direction = "up"

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: DTypeLike | None = None) -> None:
        super().__init__(_of_one_of_k, name, dtype, k=k)
        self.k = k


class SparseTopKCategoricalAccuracy(FunctionMetric):
    """How often the class whose index the target is is among the `k` largest predictions.

    Args:
        k: how many count.
        name, dtype: as for `Metric`.
        from_sorted_ids: whether predictions are class indices, best first, and not scores.

    >>> metrics.SparseTopKCategoricalAccuracy(k=2)([2, 0], [[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
    tensor(0.5000)
    """

    direction = "up"
    _unwritten = {"from_sorted_ids": False}

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: DTypeLike | None = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(_of_this_of_k, name, dtype, k=k, from_sorted_ids=from_sorted_ids)
        self.k, self.from_sorted_ids = k, from_sorted_ids
