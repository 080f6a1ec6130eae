"""`Arrays`: x, y and sample weights as users give them, parsed once into tensors with equally many rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchfunc.errors import did_you_mean
from torchfunc.frames import is_frame
from torchfunc.structures import holds_numbers, leaves, map_structure
from torchfunc.training.data.conversion import PLAIN_ARRAYS, ArrayLike, named_tensors

__all__ = [
    "ANYTHING",
    "Arrays",
    "Batch",
    "ClassWeight",
    "Data",
    "Expected",
    "Tensors",
    "WeighByClass",
    "is_array_like",
    "pack_x_y_sample_weight",
    "unpack_x_y_sample_weight",
]

Tensors: TypeAlias = "Tensor | list[Any] | tuple[Any, ...] | Mapping[str, Any] | None"
"""A tensor, or lists, tuples and dicts of tensors."""

Data: TypeAlias = Tensors
"""`x`, `(x, y)` or `(x, y, sample_weight)`, as a step of the user's own gets it."""

ClassWeight: TypeAlias = Mapping[int, float]
"""The weights of samples by the class index of their target."""

WeighByClass: TypeAlias = Callable[[Tensor], Tensor]
"""A function from targets to the weights of their samples."""


class Expected(NamedTuple):
    """What a model says of its data.

    Attributes:
        input_names, output_names: what its inputs and outputs are called; frames are taken apart by them.
        floats: what NumPy's floats become; `config.floatx()` by default.
    """

    input_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None
    floats: torch.dtype | None = None


ANYTHING = Expected()
"""What is expected of data for no model in particular."""


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
        expected: Expected = ANYTHING,
    ) -> Arrays:
        """Convert what the user gave: arrays, tensors, frames, lists of numbers, nested in lists, tuples and dicts.

        Args:
            x, y, sample_weight: the data.
            expected: what the model says of them.

        Raises:
            ValueError: an array holds objects or text, numbers of rows differ, there are none, or an array has no axis.
        """
        found: dict[str, Tensor] = {}
        input_names, output_names, floats = expected
        given = {
            "x": _inputs_among(_columns_or_frame(x, "x", input_names), input_names),
            "y": _columns_or_frame(y, "y", output_names),
            "sample_weight": sample_weight,
        }
        tensors = {
            name: None if value is None else named_tensors(value, name, found, floats) for name, value in given.items()
        }
        scalars = [name for name, leaf in found.items() if leaf.ndim == 0]
        if scalars:
            raise ValueError(f"{', '.join(scalars)}: a single number, but the first axis of all data counts the rows.")
        rows = [leaf.shape[0] for leaf in found.values()]
        if len(set(rows)) > 1:
            listed = ", ".join(f"{name} has {count}" for name, count in zip(found, rows, strict=True))
            raise ValueError(f"All arrays need the same number of rows (first axis), but {listed}.")
        if not rows or not rows[0]:
            raise ValueError("There is no data: x has no rows.")
        return cls(**tensors, rows=rows[0])

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

    def weighted(self, weigh: WeighByClass | None) -> Arrays:
        """The same rows, each weighted by the class of its target.

        Args:
            weigh: gives the weights for an array of targets; None leaves the rows as they are.

        Raises:
            ValueError: there are several outputs, no targets, or sample weights too.
        """
        if weigh is None:
            return self
        if self.sample_weight is not None:
            raise ValueError("Give `class_weight` or `sample_weight`, not both.")
        targets = [leaf for leaf in leaves(self.y) if leaf is not None]
        if len(targets) != 1:
            given = "several outputs" if targets else "no targets"
            raise ValueError(f"`class_weight` needs one array of targets, but there are {given}. Use `sample_weight`.")
        return Arrays(self.x, self.y, weigh(targets[0]), self.rows)

    def to(self, device: torch.device) -> Arrays:
        """The same rows on a device; tensors that are there already stay the same objects."""

        parts = (self.x, self.y, self.sample_weight)
        if not [part for part in parts if not (part is None or (isinstance(part, Tensor) and part.device == device))]:
            return self

        def move(leaf: Tensor | None) -> Tensor | None:
            return leaf if leaf is None or leaf.device == device else leaf.to(device, non_blocking=True)

        x, y, sample_weight = map_structure(move, parts)
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

    >>> x, y, sample_weight = utils.unpack_x_y_sample_weight(([1.0], [2.0]))
    >>> x, y, sample_weight
    ([1.0], [2.0], None)
    """
    if not isinstance(data, (tuple, list)):
        return Batch(data)
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"Data is x, (x,), (x, y) or (x, y, sample_weight), got a {type(data).__name__} of {len(data)}."
        )
    return Batch(*data)


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The counterpart of `unpack_x_y_sample_weight`, as short as it can be.

    >>> utils.pack_x_y_sample_weight([1.0], [2.0])
    ([1.0], [2.0])
    """
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
        return holds_numbers(value) or all(is_array_like(item) for item in value)
    return value is None or isinstance(value, Tensor) or hasattr(value, "__array__")


def _inputs_among(x: ArrayLike, input_names: Sequence[str] | None) -> ArrayLike:
    """A dict without the keys that a model has no input for, of which it warns; all else as it is."""
    if type(x) in PLAIN_ARRAYS or not isinstance(x, Mapping) or not input_names or not set(input_names) < set(x):
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
    if (
        value is None
        or type(value) in PLAIN_ARRAYS
        or not is_frame(value)
        or value.ndim == 1
        or wanted is None
        or len(wanted) < 2
    ):
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
