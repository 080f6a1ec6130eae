"""In which dtype a layer with weights computes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["in_dtype_of"]


def in_dtype_of(weight: Tensor, inputs: Tensor) -> Tensor:
    """Integers, and floats of another width than the weights, in the dtype of the weights.

    Under `torch.autocast`, which casts floats itself, these stay as they are; so do complex numbers.
    """
    if not isinstance(inputs, Tensor):
        # torch.fx's tracing is not about dtypes.
        return inputs
    dtype = inputs.dtype
    if dtype is weight.dtype or dtype.is_complex:
        return inputs
    # (For "meta" torch has no autocast, and raises when asked.)
    can_be_cast = dtype.is_floating_point and not inputs.is_meta
    casts_itself = can_be_cast and torch.is_autocast_enabled(inputs.device.type)
    return inputs if casts_itself else inputs.to(weight.dtype)
