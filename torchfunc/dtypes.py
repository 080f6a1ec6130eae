"""Dtypes by name: `torch.float32`, "float32" and `numpy.float32` are taken for the same thing everywhere."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from torchfunc.errors import did_you_mean

__all__ = ["DTypeLike", "as_dtype", "dtype_name", "shape_and_dtype"]

# For suggestions.
_NAMES = [name for name, value in vars(torch).items() if isinstance(value, torch.dtype)]

DTypeLike: TypeAlias = "torch.dtype | str | np.dtype | type"


def as_dtype(dtype: Any) -> torch.dtype:
    """Return the `torch.dtype` that `dtype` names.

    Args:
        dtype: a `torch.dtype`, a name ("float32", "torch.int64"), a NumPy dtype or scalar type, or the
            config of a Keras dtype policy (`{"class_name": "DTypePolicy", "config": {"name": "float32"}}`).

    Raises:
        ValueError: nothing of that name exists.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if isinstance(dtype, dict):
        dtype = dtype.get("config", {}).get("name")
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
        if isinstance(found, torch.dtype):
            return found
    elif dtype is not None:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = ""
        found = getattr(torch, name, None)
        if isinstance(found, torch.dtype):
            return found
    hint = did_you_mean(dtype, _NAMES) if isinstance(dtype, str) else ""
    raise ValueError(f"{dtype!r} is not a dtype.{hint} Give a torch.dtype or a name such as 'float32' or 'int64'.")


def dtype_name(dtype: Any) -> str:
    """Return the plain name of a dtype: `torch.float32` -> "float32"."""
    return str(as_dtype(dtype)).removeprefix("torch.")


def shape_and_dtype(tensor: torch.Tensor) -> str:
    """What messages say of a tensor: `(12, 3) float32`."""
    return f"{tuple(tensor.shape)} {dtype_name(tensor.dtype)}"
