"""Arrays turned into other arrays: one-hot rows, and rows of length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name

__all__ = ["normalize", "standardize_dtype", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class indices as one-hot rows: `(...)` or `(..., 1)` -> `(..., num_classes)`.

    Args:
        x: integers from 0, as an array or a list; or a tensor.
        num_classes: the largest index plus one by default.

    Returns:
        a NumPy array of float64, or for a tensor a tensor of `config.floatx()`.

    Raises:
        ValueError: an index is negative or not below `num_classes`.

    >>> utils.to_categorical([0, 2], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    classes = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x, dtype="int64"))
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes.squeeze(-1)
    classes = classes.long()
    largest = int(classes.max()) if classes.numel() else -1
    count = num_classes or largest + 1
    if classes.numel() and (int(classes.min()) < 0 or largest >= count):
        raise ValueError(
            f"Class indices lie between 0 and {count - 1} for {count} classes, got {int(classes.min())} to {largest}."
        )
    one_hot = F.one_hot(classes, count)
    return one_hot.to(as_dtype(floatx())) if isinstance(x, Tensor) else one_hot.numpy().astype("float64")


def normalize(x: Any, axis: int = -1, order: float = 2) -> Any:
    """x divided by its norm along an axis, so that the norm becomes 1. What is zero stays zero.

    Args:
        x: an array or list of any shape; or a tensor.
        axis: along which the norm is taken.
        order: which norm; 2 is the Euclidean length.

    Returns:
        a NumPy array, or for a tensor a tensor, of the same shape.

    >>> utils.normalize([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    if isinstance(x, Tensor):
        return F.normalize(x if x.is_floating_point() else x.to(as_dtype(floatx())), p=order, dim=axis)
    array = np.asarray(x)
    norm = np.linalg.norm(array, order, axis, keepdims=True)
    return array / np.where(norm == 0, 1, norm)


def standardize_dtype(dtype: DTypeLike | None) -> str:
    """The name of a dtype, of `config.floatx()` for None.

    >>> utils.standardize_dtype(torch.int64)
    'int64'
    """
    return floatx() if dtype is None else dtype_name(as_dtype(dtype))
