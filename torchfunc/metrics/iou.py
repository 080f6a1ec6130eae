"""Intersection over union of what was predicted and what is there (keras iou_metrics.py)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import epsilon, floatx
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.losses.shapes import TensorLike, as_tensors
from torchfunc.losses.weighting import match_weight
from torchfunc.metrics.base import Metric

__all__ = ["BinaryIoU", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU"]


def _largest(values: Tensor, axis: int) -> Tensor:
    return (values.byte() if values.dtype is torch.bool else values).argmax(axis)


class IoU(Metric):
    """`true_positives / (true_positives + false_positives + false_negatives)` of a class, mean over some classes.

    Classes that occur neither in targets nor in predictions do not count; neither do indices outside the classes.

    Args:
        num_classes: how many classes there are.
        target_class_ids: those the mean is taken over.
        name: as for `Metric`.
        dtype: of the counts. By default integers, which cut the fractions off sample weights, with a warning;
            "float32" keeps them.
        ignore_class: a label that is left out, such as 255 for the border of things.
        sparse_y_true: whether targets are class indices; else one-hot or probabilities.
        sparse_y_pred: whether predictions are class indices; else logits or probabilities.
        axis: where the classes are in what is not sparse.

    Raises:
        ValueError: a class is not among the classes.

    >>> metrics.IoU(num_classes=2, target_class_ids=[1])([0, 0, 1, 1], [0, 1, 0, 1])  # 1 shared of 3
    tensor(0.3333)
    """

    direction = "up"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name=name, dtype=dtype or "int32")
        if not target_class_ids or not all(0 <= each < num_classes for each in target_class_ids):
            raise ValueError(
                f"{type(self).__name__}: target_class_ids are class indices from 0 to {num_classes - 1}, "
                f"got {target_class_ids!r}."
            )
        self.num_classes, self.target_class_ids = num_classes, list(target_class_ids)
        self.ignore_class, self.axis = ignore_class, axis
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        # 2³¹ pixels are soon counted.
        state_dtype = torch.promote_types(self.dtype, torch.float32) if self.dtype.is_floating_point else torch.int64
        self.total_cm = self.add_variable((num_classes, num_classes), "zeros", state_dtype, name="total_cm")
        self._targets = self._add_constant(self.target_class_ids, torch.int64)

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Add one batch.

        Args:
            y_true: class indices `(batch, ...)`, or with a class axis.
            y_pred: class indices of the same shape, or with a class axis.
            sample_weight: `(batch,)`, or of the shape of the indices, or of their first axes.

        Raises:
            ValueError: there is not one target for each prediction, or the weights do not fit.
        """
        y_true, y_pred = as_tensors(y_true, y_pred)
        y_true = y_true if self.sparse_y_true else _largest(y_true, self.axis)
        y_pred = y_pred if self.sparse_y_pred else _largest(y_pred, self.axis)
        if y_true.numel() != y_pred.numel():
            raise ValueError(
                f"{self.name}: the class indices of targets and predictions have shapes {tuple(y_true.shape)} and "
                f"{tuple(y_pred.shape)}, but there is one target for each prediction. sparse_y_true and sparse_y_pred "
                "say which of them have a class axis."
            )
        weight = self._weight_of(y_true, sample_weight)
        row, column = y_true.reshape(-1).long(), y_pred.reshape(-1).long()
        last = self.num_classes - 1
        inner_row, inner_column = row.clamp(0, last), column.clamp(0, last)
        counts = (inner_row == row) & (inner_column == column)
        if self.ignore_class is not None:
            counts = counts & (row != self.ignore_class)
        cell = inner_row * self.num_classes + inner_column
        added = counts.to(self.total_cm.dtype) if weight is None else counts * weight
        sums = torch.zeros_like(self.total_cm).view(-1).index_add_(0, cell, added)
        self.total_cm.add_(sums.view_as(self.total_cm))

    def _weight_of(self, labels: Tensor, sample_weight: TensorLike | None) -> Tensor | None:
        if sample_weight is None:
            return None
        weight = torch.as_tensor(sample_weight, device=labels.device)
        if weight.is_floating_point() and not self.total_cm.is_floating_point() and not torch.compiler.is_compiling():
            warnings.warn(
                f"{self.name} counts in integers, so the fractions of its sample_weight are cut off. "
                "Create it with dtype='float32' to keep them.",
                stacklevel=3,
            )
        labels, weight = match_weight(self.name, labels, weight.to(self.total_cm.dtype))
        return weight.expand(labels.shape).reshape(-1)

    def result(self) -> Tensor:
        dtype = self.dtype if self.dtype.is_floating_point else as_dtype(floatx())
        found = self.total_cm.diagonal()
        union = self.total_cm.sum(0) + self.total_cm.sum(1) - found
        found, union = found[self._targets].to(dtype), union[self._targets].to(dtype)
        occurs = union > 1e-9
        shares = torch.where(occurs, found / (union + epsilon()), 0.0)
        return shares.sum() / (occurs.sum() + epsilon())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "target_class_ids": self.target_class_ids,
            "ignore_class": self.ignore_class,
            "sparse_y_true": self.sparse_y_true,
            "sparse_y_pred": self.sparse_y_pred,
            "axis": self.axis,
        }

    def _config_without(self, *arguments: str) -> dict[str, Any]:
        return {key: value for key, value in IoU.get_config(self).items() if key not in arguments}


class BinaryIoU(IoU):
    """The IoU of yes-or-no labels, with predictions of at least a threshold taken for a yes.

    Args:
        target_class_ids: the classes, of 0 and 1, the mean is taken over.
        threshold: from which on a prediction is a yes.
        name, dtype: as for `IoU`.

    >>> metrics.BinaryIoU(target_class_ids=[1], threshold=0.5)([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8])
    tensor(0.3333)
    """

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        y_true, y_pred = as_tensors(y_true, y_pred)
        super().update_state(y_true, y_pred >= self.threshold, sample_weight)

    def get_config(self) -> dict[str, Any]:
        arguments = ("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")
        return {**self._config_without(*arguments), "threshold": self.threshold}


class MeanIoU(IoU):
    """The mean IoU of all classes.

    Args:
        num_classes: how many classes there are.
        name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis: as for `IoU`.

    >>> metrics.MeanIoU(num_classes=2)([0, 0, 1, 1], [0, 1, 0, 1])
    tensor(0.3333)
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        ids = range(num_classes)
        super().__init__(num_classes, ids, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config_without("target_class_ids")


class OneHotIoU(IoU):
    """The IoU of one-hot targets, mean over some classes.

    Args:
        num_classes, target_class_ids, name, dtype, ignore_class: as for `IoU`.
        sparse_y_pred: whether predictions are class indices; else logits or probabilities.
        axis: where the classes are.

    >>> metrics.OneHotIoU(num_classes=2, target_class_ids=[1])([[1, 0], [0, 1]], [[0.2, 0.8], [0.3, 0.7]])
    tensor(0.5000)
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config_without("sparse_y_true")


class OneHotMeanIoU(MeanIoU):
    """The mean IoU of all classes, for one-hot targets.

    Args:
        num_classes, name, dtype, ignore_class: as for `IoU`.
        sparse_y_pred: whether predictions are class indices; else logits or probabilities.
        axis: where the classes are.

    >>> metrics.OneHotMeanIoU(num_classes=2)([[1, 0], [0, 1]], [[0.2, 0.8], [0.3, 0.7]])
    tensor(0.2500)
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config_without("target_class_ids", "sparse_y_true")
