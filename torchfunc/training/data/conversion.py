"""Arrays, frames and lists of numbers as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.graph import SymbolicValue
from torchfunc.readable_arrays import readable
from torchfunc.structures import holds_numbers

__all__ = ["PLAIN_ARRAYS", "ArrayLike", "named_tensors", "to_tensors"]

ArrayLike: TypeAlias = Any
"""What a user may give as data: an array, a tensor, a frame, a list of numbers; or lists, tuples and dicts of these."""

# What most data are: neither containers nor frames, which is slow to ask of them.
PLAIN_ARRAYS = frozenset({np.ndarray, Tensor})
# torch has these unsigned types, but hardly an operation on them.
_WIDER = {np.dtype("uint16"): np.int32, np.dtype("uint32"): np.int64, np.dtype("uint64"): np.int64}
_LARGEST = 2**63 - 1
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def to_tensors(structure: ArrayLike, name: str, floats: torch.dtype | None = None) -> Any:
    """Turn arrays into tensors, in lists, tuples and dicts of them; tensors stay as they are.

    Integers and booleans keep their type, but for unsigned ones of more than 8 bits. A list of numbers is an array.

    Args:
        structure: what the user gave.
        name: what to call it in messages.
        floats: what NumPy's floats become; `config.floatx()` by default.

    Raises:
        ValueError: an array holds objects or text, or something is no array, or is a tensor that has no rows to take.
        TypeError: something is symbolic.
    """
    return named_tensors(structure, name, {}, floats)


def named_tensors(structure: ArrayLike, name: str, found: dict[str, Tensor], floats: torch.dtype | None = None) -> Any:
    """`to_tensors`, which adds all tensors to `found` by their names: `x`, `x[0]`, `x['title']`."""
    if type(structure) in PLAIN_ARRAYS:
        found[name] = _tensor(structure, name, floats or as_dtype(floatx()))
        return found[name]
    if isinstance(structure, Mapping):
        return {key: named_tensors(value, f"{name}[{key!r}]", found, floats) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)) and not holds_numbers(structure):
        converted = [named_tensors(value, f"{name}[{index}]", found, floats) for index, value in enumerate(structure)]
        if isinstance(structure, list):
            return converted
        return type(structure)(*converted) if hasattr(structure, "_fields") else tuple(converted)
    if structure is not None:
        found[name] = _tensor(structure, name, floats or as_dtype(floatx()))
    return found.get(name)


def _tensor(value: Any, name: str, floats: torch.dtype) -> Tensor:
    if not isinstance(value, Tensor):
        return _array_to_tensor(value, name, floats)
    if value.layout is not torch.strided or value.is_nested:
        kind, dense = ("nested", "to_padded_tensor(0)") if value.is_nested else ("sparse", "to_dense()")
        raise ValueError(f"{name} is a {kind} tensor, of which batches cannot be taken. Give `{name}.{dense}`.")
    if value.is_meta:
        raise ValueError(f"{name} is a tensor on the meta device, which holds no numbers.")
    # (Moved first: torch hardly computes with these types.)
    return _array_to_tensor(value.cpu().numpy(), name, floats).to(value.device) if value.dtype in _UNSIGNED else value


def _array_to_tensor(value: Any, name: str, floats: torch.dtype) -> Tensor:
    if type(value) in PLAIN_ARRAYS:
        array = value
    else:
        array = frame_to_array(value, name) if is_frame(value) else _as_array(value, name)
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"{name} is {type(value).__name__} of dtype {array.dtype}, which no tensor can hold. Turn it into numbers, "
            "all rows of one shape."
        )
    if array.dtype.kind == "f":
        array = array.astype(np.float64 if floats is torch.float64 else np.float32, copy=False)
    if array.dtype in _WIDER:
        if array.size and array.max() > _LARGEST:
            raise ValueError(
                f"{name} holds {array.max()} (dtype {array.dtype}), but the largest integer of a tensor is {_LARGEST}. "
                "Give floats, or smaller numbers."
            )
        array = array.astype(_WIDER[array.dtype])
    tensor = torch.from_numpy(readable(np.asarray(array, order="C")))
    return tensor.to(floats) if tensor.is_floating_point() else tensor


def _as_array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, SymbolicValue):
        raise TypeError(
            f"{name} is {value!r}, which stands for data and holds none. Give arrays, tensors or a loader here. To see "
            "what a model returns for it, or to go on drawing, call the model on it: model(x)."
        )
    try:
        return np.asarray(value)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"{name} cannot be made an array: {reason}. Are its rows of different lengths? Pad them, for example with "
            "utils.pad_sequences."
        ) from error
