"""Arrays as users give them, turned into structures of tensors with equally many rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.training.data.frames import frame_to_array, is_frame

__all__ = [
    "check_counts",
    "check_rows",
    "class_weights_to_sample_weights",
    "first_leaf",
    "is_array_like",
    "map_leaves",
    "named_leaves",
    "pack_x_y_sample_weight",
    "to_tensors",
    "train_validation_split",
    "unpack_x_y_sample_weight",
]

# torch has these unsigned types, but hardly an operation on them.
_WIDER = {np.dtype("uint16"): np.int32, np.dtype("uint32"): np.int64, np.dtype("uint64"): np.int64}


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """`x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)` as three, with None for what is missing.

    Raises:
        ValueError: a tuple or list of another length.
    """
    if not isinstance(data, (tuple, list)):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"Data is x, (x,), (x, y) or (x, y, sample_weight), got a {type(data).__name__} of {len(data)}."
        )
    x, y, sample_weight = (*data, None, None)[:3]
    return x, y, sample_weight


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The counterpart of `unpack_x_y_sample_weight`, as short as it can be."""
    if sample_weight is not None:
        return x, y, sample_weight
    if y is not None:
        return x, y
    return (x,) if isinstance(x, (tuple, list)) else x


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """Apply `function` to what lists, tuples and dicts hold; None stays None."""
    if structure is None:
        return None
    if isinstance(structure, Tensor):
        return function(structure)
    if isinstance(structure, Mapping):
        return {key: map_leaves(function, value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        mapped = [map_leaves(function, value) for value in structure]
        return mapped if isinstance(structure, list) else tuple(mapped)
    return function(structure)


def named_leaves(structure: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What lists, tuples and dicts hold, called `x`, `x[0]`, `x['title']`; without None."""
    if isinstance(structure, Mapping):
        for key, value in structure.items():
            yield from named_leaves(value, f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, value in enumerate(structure):
            yield from named_leaves(value, f"{name}[{index}]")
    elif structure is not None:
        yield name, structure


def first_leaf(structure: Any) -> Any:
    """The first thing that lists, tuples and dicts hold; None if there is none."""
    return next((leaf for _, leaf in named_leaves(structure, "")), None)


def is_array_like(value: Any) -> bool:
    """Whether `value` is an array, a tensor, or lists, tuples and dicts of them or of numbers."""
    if isinstance(value, Mapping):
        return all(is_array_like(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return _holds_numbers(value) or all(is_array_like(item) for item in value)
    return value is None or isinstance(value, Tensor) or hasattr(value, "__array__")


def _holds_numbers(value: Any) -> bool:
    """Whether a list, by its first item, holds numbers (at any depth) and no arrays."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, (bool, int, float, complex, np.generic))


def to_tensors(structure: Any, name: str) -> Any:
    """Turn arrays into tensors, in lists, tuples and dicts of them; tensors stay as they are.

    NumPy floats become `config.floatx()`; integers and booleans keep their type. A list of numbers is an array.

    Args:
        structure: what the user gave.
        name: what to call it in messages.

    Raises:
        ValueError: an array holds objects or text, or something is no array.
    """
    if isinstance(structure, Mapping):
        return {key: to_tensors(value, f"{name}[{key!r}]") for key, value in structure.items()}
    if isinstance(structure, (list, tuple)) and not _holds_numbers(structure):
        converted = [to_tensors(value, f"{name}[{index}]") for index, value in enumerate(structure)]
        return converted if isinstance(structure, list) else tuple(converted)
    if structure is None or isinstance(structure, Tensor):
        return structure
    return _array_to_tensor(structure, name)


def _array_to_tensor(value: Any, name: str) -> Tensor:
    array = frame_to_array(value, name) if is_frame(value) else _as_array(value, name)
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"{name} is {type(value).__name__} of dtype {array.dtype}, which no tensor can hold. Turn it into numbers, "
            "all rows of one shape."
        )
    if array.dtype.kind == "f":
        array = array.astype(np.float32 if floatx() != "float64" else np.float64, copy=False)
    if array.dtype in _WIDER:
        array = array.astype(_WIDER[array.dtype])
    # torch reads neither foreign byte orders nor negative strides, and warns of arrays that are not writable.
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.to(as_dtype(floatx())) if tensor.is_floating_point() else tensor


def _as_array(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made an array: {error}. Are its rows of different lengths?") from error


def check_counts(least: int = 1, optional: bool = True, **counts: Any) -> None:
    """Raise ValueError, naming the argument, for what is no integer of at least `least` (nor, if `optional`, None)."""
    for name, count in counts.items():
        if count is None and optional:
            continue
        if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < least:
            raise ValueError(
                f"`{name}` is an integer of at least {least}{' or None' if optional else ''}, got {count!r}."
            )


def check_rows(x: Any, y: Any, sample_weight: Any) -> int:
    """The number of rows that all arrays have.

    Raises:
        ValueError: they differ, there are none, or an array has no axis.
    """
    named = {"x": x, "y": y, "sample_weight": sample_weight}
    leaves = {name: leaf for key, value in named.items() for name, leaf in named_leaves(value, key)}
    scalars = [name for name, leaf in leaves.items() if leaf.ndim == 0]
    if scalars:
        raise ValueError(f"{', '.join(scalars)}: a single number, but the first axis of all data counts the rows.")
    rows = {name: leaf.shape[0] for name, leaf in leaves.items()}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise ValueError(f"All arrays need the same number of rows (first axis), but {listed}.")
    if not rows or not next(iter(rows.values())):
        raise ValueError("There is no data: x has no rows.")
    return next(iter(rows.values()))


def train_validation_split(x: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Any, Any]:
    """Split off the last `fraction` of the rows, before any shuffling.

    Returns:
        the training data and the validation data, each as `(x, y, sample_weight)`.

    Raises:
        ValueError: the fraction is not between 0 and 1, or one of the parts would be empty.
    """
    if not isinstance(fraction, Real) or not 0 < fraction < 1:
        raise ValueError(f"`validation_split` lies between 0 and 1, got {fraction!r}.")
    rows = check_rows(x, y, sample_weight)
    first = math.floor(rows * (1.0 - fraction))
    if first in (0, rows):
        raise ValueError(f"`validation_split={fraction}` of {rows} rows leaves no rows on one side.")
    whole = (x, y, sample_weight)
    return map_leaves(lambda leaf: leaf[:first], whole), map_leaves(lambda leaf: leaf[first:], whole)


def class_weights_to_sample_weights(y: Any, class_weight: Mapping[int, float], sample_weight: Any = None) -> Tensor:
    """The weight of each target's class: 1 for classes that are not mentioned.

    Args:
        y: class indices `(batch, ...)` or `(batch, ..., 1)`, or one-hot `(batch, ..., classes)`.
        class_weight: weights by class index.
        sample_weight: must be None: there is no rule for having both.

    Raises:
        ValueError: there are several outputs, no targets, or sample weights too.
    """
    if sample_weight is not None:
        raise ValueError("Give `class_weight` or `sample_weight`, not both.")
    targets = [leaf for _, leaf in named_leaves(y, "y")]
    if len(targets) != 1:
        given = "several outputs" if targets else "no targets"
        raise ValueError(f"`class_weight` needs one array of targets, but there are {given}. Use `sample_weight`.")
    y = targets[0]
    classes = y
    if y.ndim > 1:
        classes = y.squeeze(-1) if y.shape[-1] == 1 else y.argmax(-1)
    classes = classes.round()
    weights = torch.ones(classes.shape, dtype=as_dtype(floatx()), device=y.device)
    for index, weight in class_weight.items():
        weights.masked_fill_(classes == index, weight)
    return weights
