"""`Arrays`: x, y and sample weights as users give them, parsed once into tensors with equally many rows."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.registry import did_you_mean
from torchfunc.structures import leaves, map_structure

__all__ = [
    "ArrayLike",
    "Arrays",
    "Batch",
    "ClassWeight",
    "Data",
    "Tensors",
    "is_array_like",
    "pack_x_y_sample_weight",
    "to_tensors",
    "unpack_x_y_sample_weight",
]

ArrayLike: TypeAlias = Any
"""What a user may give as data: an array, a tensor, a frame, a list of numbers; or lists, tuples and dicts of these."""

Tensors: TypeAlias = "Tensor | list[Any] | tuple[Any, ...] | Mapping[str, Any] | None"
"""A tensor, or lists, tuples and dicts of tensors."""

Data: TypeAlias = Tensors
"""`x`, `(x, y)` or `(x, y, sample_weight)`, as a step of the user's own gets it."""

ClassWeight: TypeAlias = Mapping[int, float]
"""The weights of samples by the class index of their target."""

# torch has these unsigned types, but hardly an operation on them.
_WIDER = {np.dtype("uint16"): np.int32, np.dtype("uint32"): np.int64, np.dtype("uint64"): np.int64}


class Batch(NamedTuple):
    """One batch, unpacked."""

    x: Tensors
    y: Tensors = None
    sample_weight: Tensors = None


@dataclass(frozen=True)
class Arrays:
    """Inputs, targets and sample weights of the same rows, as tensors.

    Attributes:
        x: a tensor `(rows, ...)`, or lists, tuples and dicts of them.
        y, sample_weight: the like, or None.
        rows: how many rows all of them have.
    """

    x: Tensors
    y: Tensors
    sample_weight: Tensors
    rows: int

    @classmethod
    def parse(
        cls,
        x: ArrayLike,
        y: ArrayLike = None,
        sample_weight: ArrayLike = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> Arrays:
        """Convert what the user gave: arrays, tensors, frames, lists of numbers, nested in lists, tuples and dicts.

        NumPy floats become `config.floatx()`; integers and booleans keep their type.

        Args:
            x, y, sample_weight: the data.
            input_names, output_names: what a model's several inputs and outputs are called; frames are taken apart by
                them.

        Raises:
            ValueError: an array holds objects or text, numbers of rows differ, there are none, or an array has no axis.
        """
        found: dict[str, Tensor] = {}
        tensors = (
            _to_tensors(_inputs_among(_columns_or_frame(x, "x", input_names), input_names), "x", found),
            _to_tensors(_columns_or_frame(y, "y", output_names), "y", found),
            _to_tensors(sample_weight, "sample_weight", found),
        )
        scalars = [name for name, leaf in found.items() if leaf.ndim == 0]
        if scalars:
            raise ValueError(f"{', '.join(scalars)}: a single number, but the first axis of all data counts the rows.")
        rows = {name: leaf.shape[0] for name, leaf in found.items()}
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"{name} has {count}" for name, count in rows.items())
            raise ValueError(f"All arrays need the same number of rows (first axis), but {listed}.")
        if not rows or not next(iter(rows.values())):
            raise ValueError("There is no data: x has no rows.")
        return cls(*tensors, next(iter(rows.values())))

    def _slice(self, start: int, stop: int) -> Arrays:
        def cut(leaf: Tensor | None) -> Tensor | None:
            return None if leaf is None else leaf[start:stop]

        x, y, sample_weight = map_structure(cut, (self.x, self.y, self.sample_weight))
        return Arrays(x, y, sample_weight, stop - start)

    def first(self, rows: int) -> Arrays:
        """Views of the first `rows` rows, or of all if there are fewer."""
        return self._slice(0, min(rows, self.rows))

    def split(self, fraction: float) -> tuple[Arrays, Arrays]:
        """Split off the last `fraction` of the rows for validation: the training and the validation data.

        Raises:
            ValueError: the fraction is not between 0 and 1, or one of the parts would be empty.
        """
        if not isinstance(fraction, Real) or not 0 < fraction < 1:
            raise ValueError(f"`validation_split` lies between 0 and 1, got {fraction!r}.")
        first = math.floor(self.rows * (1.0 - fraction))
        if first in (0, self.rows):
            raise ValueError(f"`validation_split={fraction}` of {self.rows} rows leaves no rows on one side.")
        return self._slice(0, first), self._slice(first, self.rows)

    def weighted(self, class_weight: ClassWeight | None) -> Arrays:
        """The same rows, each weighted by the class of its target: 1 for classes that are not mentioned.

        Targets are class indices `(rows, ...)` or `(rows, ..., 1)`, or one-hot `(rows, ..., classes)`.

        Args:
            class_weight: weights by class index; None leaves the rows as they are.

        Raises:
            ValueError: there are several outputs, no targets, or sample weights too.
        """
        if class_weight is None:
            return self
        if self.sample_weight is not None:
            raise ValueError("Give `class_weight` or `sample_weight`, not both.")
        targets = [leaf for leaf in leaves(self.y) if leaf is not None]
        if len(targets) != 1:
            given = "several outputs" if targets else "no targets"
            raise ValueError(f"`class_weight` needs one array of targets, but there are {given}. Use `sample_weight`.")
        classes = targets[0]
        if classes.ndim > 1:
            classes = classes.squeeze(-1) if classes.shape[-1] == 1 else classes.argmax(-1)
        classes = classes.round() if classes.is_floating_point() else classes
        weights = torch.ones(classes.shape, dtype=as_dtype(floatx()), device=classes.device)
        for index, weight in class_weight.items():
            weights.masked_fill_(classes == index, weight)
        return Arrays(self.x, self.y, weights, self.rows)

    def to(self, device: torch.device) -> Arrays:
        """The same rows on a device; tensors that are there already stay the same objects."""

        def move(leaf: Tensor | None) -> Tensor | None:
            return leaf if leaf is None or leaf.device == device else leaf.to(device, non_blocking=True)

        x, y, sample_weight = map_structure(move, (self.x, self.y, self.sample_weight))
        return Arrays(x, y, sample_weight, self.rows)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, those of x first."""
        return [leaf for leaf in leaves((self.x, self.y, self.sample_weight)) if leaf is not None]

    @property
    def packed(self) -> Data:
        """`x`, `(x, y)` or `(x, y, sample_weight)`, as batches are handed to steps."""
        return pack_x_y_sample_weight(self.x, self.y, self.sample_weight)


def unpack_x_y_sample_weight(data: Any) -> Batch:
    """`x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)` as a named tuple of three, with None for what is missing.

    Raises:
        ValueError: a tuple or list of another length.
    """
    if not isinstance(data, (tuple, list)):
        return Batch(data)
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"Data is x, (x,), (x, y) or (x, y, sample_weight), got a {type(data).__name__} of {len(data)}."
        )
    return Batch(*data)


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The counterpart of `unpack_x_y_sample_weight`, as short as it can be."""
    if sample_weight is not None:
        return x, y, sample_weight
    if y is not None:
        return x, y
    return (x,) if isinstance(x, (tuple, list)) else x


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


def to_tensors(structure: ArrayLike, name: str) -> Any:
    """Turn arrays into tensors, in lists, tuples and dicts of them; tensors stay as they are.

    NumPy floats become `config.floatx()`; integers and booleans keep their type. A list of numbers is an array.

    Args:
        structure: what the user gave.
        name: what to call it in messages.

    Raises:
        ValueError: an array holds objects or text, or something is no array.
    """
    return _to_tensors(structure, name, {})


def _to_tensors(structure: ArrayLike, name: str, found: dict[str, Tensor]) -> Tensors:
    """`to_tensors`, which adds all tensors to `found` by their names: `x`, `x[0]`, `x['title']`."""
    if isinstance(structure, Mapping):
        return {key: _to_tensors(value, f"{name}[{key!r}]", found) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)) and not _holds_numbers(structure):
        converted = [_to_tensors(value, f"{name}[{index}]", found) for index, value in enumerate(structure)]
        return converted if isinstance(structure, list) else tuple(converted)
    if structure is not None:
        found[name] = structure if isinstance(structure, Tensor) else _array_to_tensor(structure, name)
    return found.get(name)


def _array_to_tensor(value: Any, name: str) -> Tensor:
    array = _frame_to_array(value, name) if _is_frame(value) else _as_array(value, name)
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


def _is_frame(value: Any) -> bool:
    """Whether this is a frame, series or index of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index))


def _frame_to_array(value: Any, name: str) -> np.ndarray:
    """A series as `(rows,)`, a frame as `(rows, columns)` of the type that holds all its columns.

    Nullable integers and booleans with gaps become floats with NaN in them. Booleans beside numbers are 0 and 1.

    Args:
        value: a frame, series or index.
        name: what to call it in messages.

    Raises:
        ValueError: a column holds no numbers; the message names it and its type.
    """
    if value.ndim == 1:
        return _column_to_array(value, name)
    # Column by column: a whole frame of booleans and numbers becomes an array of objects.
    columns = [
        _column_to_array(value.iloc[:, index], f"{name}[{label!r}]") for index, label in enumerate(value.columns)
    ]
    if not columns:
        return np.empty(value.shape, "float32")
    return np.stack(columns, axis=1, dtype=np.result_type(*columns), casting="unsafe")


def _column_to_array(column: Any, name: str) -> np.ndarray:
    kind = column.dtype
    array = np.asarray(column)
    if array.dtype == object and hasattr(kind, "na_value") and getattr(kind, "kind", "O") in "biuf":
        array = column.to_numpy(dtype="float64", na_value=np.nan)
    if array.dtype.kind in "biufc":
        return array
    advice = (
        "Use its codes (`.cat.codes`) or one-hot columns (`pandas.get_dummies(frame, dtype=float)`)"
        if str(kind) in ("category", "object", "str") or str(kind).startswith("string")
        else "Turn it into numbers"
    )
    raise ValueError(f"{name} is a pandas column of dtype {kind}, which no tensor can hold. {advice}, or drop it.")


def _inputs_among(x: ArrayLike, input_names: Sequence[str] | None) -> ArrayLike:
    """A dict without the keys that a model has no input for, of which it warns; all else as it is."""
    if not isinstance(x, Mapping) or not input_names or not set(input_names) < set(x):
        return x
    ignored = [key for key in x if key not in input_names]
    warnings.warn(f"The model takes the inputs {list(input_names)}: {ignored} of x are ignored.", stacklevel=4)
    return {name: x[name] for name in input_names}


def _columns_or_frame(value: Any, argument: str, wanted: Sequence[str] | None) -> Any:
    """A frame as a dict of columns if a model's several inputs or outputs are named like columns; else as it is.

    Args:
        value: what the user gave.
        argument: "x" or "y", for messages.
        wanted: the names of the model's inputs or outputs, None if they are not known.

    Raises:
        ValueError: there are several inputs or outputs and some are no columns; the message names them.
    """
    if not _is_frame(value) or value.ndim == 1 or wanted is None or len(wanted) < 2:
        return value
    missing = [name for name in wanted if name not in value.columns]
    if not missing:
        return {name: value[name] for name in wanted}
    hint = did_you_mean(missing[0], [str(label) for label in value.columns])
    raise ValueError(
        f"`{argument}` is a frame with the columns {list(value.columns)}, but the model has "
        f"{', '.join(map(repr, wanted))}: there is no column {', '.join(map(repr, missing))}.{hint} Name the columns "
        "so, or give a dict or list of arrays."
    )
