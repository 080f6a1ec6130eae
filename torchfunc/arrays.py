"""Arrays and numbers where a tensor is taken: the one way in which they become tensors outside of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.readable_arrays import readable

__all__ = ["as_tensor"]

_ARRAYS = (np.ndarray, np.generic, list, tuple, bool, int, float)


def as_tensor(x: Any) -> Any:
    """An array, a frame, a number or a list of numbers as a tensor; all else (a tensor, real or symbolic) as it is.

    Python's floats and NumPy's float64 become `config.floatx()`; other arrays keep their dtype.
    """
    if isinstance(x, torch.Tensor):
        return x
    if is_frame(x):
        x = frame_to_array(x, "x")
    if not isinstance(x, _ARRAYS):
        return x
    array = readable(np.asarray(x))
    return torch.as_tensor(array, dtype=as_dtype(floatx() if array.dtype == np.float64 else array.dtype))
