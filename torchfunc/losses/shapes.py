"""Targets and predictions brought to one rank, shape and dtype, or an error that says why they cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.readable_arrays import readable

__all__ = ["TensorLike", "as_tensors", "class_indices", "match_ranks", "same_shape", "target_kind"]

TensorLike: TypeAlias = Tensor | np.ndarray | Sequence[Any] | float


def as_tensors(y_true: TensorLike, y_pred: TensorLike) -> tuple[Tensor, Tensor]:
    """Both as tensors on the device of the predictions; tensors are returned as they are.

    Floats that come in arrays or lists become `config.floatx()`, so that NumPy's float64 does not spread.
    """
    if not isinstance(y_pred, Tensor):
        y_pred = _from_numbers(y_pred, None)
    if not isinstance(y_true, Tensor):
        y_true = _from_numbers(y_true, y_pred.device)
    return y_true, y_pred


def _from_numbers(values: TensorLike, device: torch.device | None) -> Tensor:
    values = frame_to_array(values, "the loss's argument") if is_frame(values) else values
    tensor = torch.as_tensor(readable(values) if isinstance(values, np.ndarray) else values, device=device)
    return tensor.to(as_dtype(floatx())) if tensor.is_floating_point() else tensor


def match_ranks(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Settle a last axis of size 1 that only one of the two has, by Keras' rule.

    The longer one loses the axis, except that a vector gains it: `(batch,)` and `(batch, 1)` give
    `(batch, 1)` twice. Any other pair is returned unchanged.
    """
    if first.ndim == second.ndim + 1 and first.shape[-1] == 1:
        return (first, second.unsqueeze(-1)) if second.ndim == 1 else (first.squeeze(-1), second)
    if second.ndim == first.ndim + 1 and second.shape[-1] == 1:
        return (first.unsqueeze(-1), second) if first.ndim == 1 else (first, second.squeeze(-1))
    return first, second


def same_shape(name: str, y_true: TensorLike, y_pred: TensorLike) -> tuple[Tensor, Tensor]:
    """Targets and predictions that are compared element by element, in one shape and the predictions' dtype.

    Args:
        name: what compares them, for the message.
        y_true: targets; cast to the dtype of `y_pred`.
        y_pred: predictions; integers become floats of the default type.

    Raises:
        ValueError: the shapes differ by more than a last axis of size 1, so that torch would
            silently compare every target with every prediction.
    """
    if not (isinstance(y_true, Tensor) and isinstance(y_pred, Tensor)):
        y_true, y_pred = as_tensors(y_true, y_pred)
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(as_dtype(floatx()))
    if y_true.dtype != y_pred.dtype:
        y_true = y_true.to(y_pred.dtype)
    if y_true.shape == y_pred.shape:
        return y_true, y_pred
    given = f"y_true has shape {tuple(y_true.shape)} and y_pred has shape {tuple(y_pred.shape)}"
    y_true, y_pred = match_ranks(y_true, y_pred)
    if y_true.shape != y_pred.shape:
        advice = f"Give targets of shape {tuple(y_pred.shape)}, or make the model's output {tuple(y_true.shape)}."
        if y_true.numel() < y_pred.numel():
            advice += " If y_true holds class indices, use a sparse loss or metric, or one-hot targets."
        raise ValueError(f"{name}: {given}, but they are compared element by element. {advice}")
    return y_true, y_pred


def class_indices(
    name: str, y_true: TensorLike, y_pred: TensorLike, axis: int = -1, for_one_hot: str | None = None
) -> tuple[Tensor, Tensor]:
    """Class indices `(batch, ...)` for predictions `(batch, ..., classes)`; a class axis of size 1 is dropped.

    Args:
        name: what compares them, for the message.
        y_true: class indices; integers, or floats that hold integers. Their dtype is kept.
        y_pred: predictions; integers are kept.
        axis: where the classes are.
        for_one_hot: what to use for one-hot targets, for the message.

    Raises:
        ValueError: there is not one index for each prediction.
    """
    if not (isinstance(y_true, Tensor) and isinstance(y_pred, Tensor)):
        y_true, y_pred = as_tensors(y_true, y_pred)
    axis = axis % y_pred.ndim if y_pred.ndim else 0
    expected = y_pred.shape[:axis] + y_pred.shape[axis + 1 :]
    if y_true.shape == expected:
        return y_true, y_pred
    given = tuple(y_true.shape)
    if y_true.ndim == y_pred.ndim and y_true.shape[axis : axis + 1] == (1,):
        y_true = y_true.squeeze(axis)
    if y_true.shape != expected:
        advice = f" For one-hot targets use {for_one_hot!r}." if for_one_hot else ""
        raise ValueError(
            f"{name}: y_true has shape {given} and y_pred has shape {tuple(y_pred.shape)} with the classes on axis "
            f"{axis}. y_true holds one class index for each prediction, shape {tuple(expected)}.{advice}"
        )
    return y_true, y_pred


def target_kind(
    y_true_shape: Sequence[int | None] | None, y_pred_shape: Sequence[int | None] | None, asked_for: str
) -> Literal["binary", "sparse", "categorical"]:
    """What kind of labels these are, as Keras decides for "accuracy" and "crossentropy".

    One prediction a sample is binary; targets with fewer axes than the predictions, or a last axis of 1, are class
    indices; anything else is one-hot. (Predictions without a class axis, `(batch,)`, are binary here; Keras reads
    the batch as the classes.)

    Args:
        y_true_shape: shape of the targets with the batch axis; unknown sizes are None.
        y_pred_shape: shape of the predictions with the batch axis.
        asked_for: the name that needs the choice, for the message.

    Raises:
        ValueError: a shape is not known.
    """
    if y_true_shape is None or y_pred_shape is None:
        raise ValueError(
            f"{asked_for!r} stands for a binary, sparse or categorical one, chosen by the shapes of targets and "
            f"predictions, and these are not known. Name the one you mean, such as 'sparse_categorical_{asked_for}'."
        )
    if len(y_pred_shape) <= 1 or y_pred_shape[-1] == 1:
        return "binary"
    if len(y_true_shape) < len(y_pred_shape) or y_true_shape[-1] == 1:
        return "sparse"
    return "categorical"
