"""Small helpers under Keras' names."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.training.arrays import pack_x_y_sample_weight, unpack_x_y_sample_weight

__all__ = ["pack_x_y_sample_weight", "set_random_seed", "to_categorical", "unpack_x_y_sample_weight"]


def set_random_seed(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, so that what follows comes out the same again.

    Raises:
        ValueError: `seed` is no integer from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"A seed is an integer from 0 to 2**32 - 1, got {seed!r}.")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class indices as one-hot rows: `(...)` or `(..., 1)` -> `(..., num_classes)`.

    Args:
        x: integers from 0, as an array or a list; or a tensor.
        num_classes: the largest index plus one by default.

    Returns:
        a NumPy array of float64, or for a tensor a tensor of `config.floatx()`.

    Raises:
        ValueError: an index is negative or not below `num_classes`.
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
