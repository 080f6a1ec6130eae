"""Checks of arguments and shapes that layers share; each error names the layer and the argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torchfunc.graph import located
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import Shapes, is_shape

__all__ = [
    "check_output_shape",
    "integers",
    "known_size",
    "one_of",
    "positive",
    "refuse",
]


def known_size(shape: Sequence[int | None], axis: int, layer: Layer) -> int:
    """The size of an axis that a weight's shape depends on.

    Raises:
        ValueError: it is unknown.
    """
    size = shape[axis]
    if size is None:
        raise ValueError(
            located(
                f"The size of axis {axis} of the input of {layer.describe()} must be known, since its weights depend "
                f"on it, but the input's shape is {tuple(shape)}. Give the size to Input(...)."
            )
        )
    return size


def check_output_shape(layer: Layer, *input_shapes: Shapes) -> None:
    """Raise a ValueError that names the layer if it can make no output from this shape, or these shapes."""
    try:
        layer.compute_output_shape(*input_shapes)
    except ValueError as error:
        shapes = ", ".join(str(tuple(shape) if is_shape(shape) else shape) for shape in input_shapes)
        raise ValueError(located(f"{layer.describe()} cannot be called on {shapes}: {error}")) from error


def positive(value: int, argument: str, owner: str) -> int:
    """A size given as an argument, as a Python integer.

    Raises:
        ValueError: it is not a positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
        raise ValueError(f"{owner} takes a positive integer for {argument}, got {value!r}.")
    return int(value)


def refuse(layer: Layer, **arguments: object) -> None:
    """Raise a ValueError for arguments of Keras that are not supported, unless they are None."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{type(layer).__name__}({name}=...) is not supported; leave it None.")


def integers(value: Any, count: int, argument: str, owner: str, minimum: int = 1) -> tuple[int, ...]:
    """`value` as a tuple of `count` integers; one integer stands for all of them.

    Raises:
        ValueError: it is something else, or an integer is below `minimum`.
    """
    values = (value,) * count if isinstance(value, int) else value
    if (
        not isinstance(values, (tuple, list))
        or len(values) != count
        or any(isinstance(each, bool) or not isinstance(each, int) or each < minimum for each in values)
    ):
        kind = "positive integers" if minimum == 1 else "integers that are not negative"
        raise ValueError(f"{owner} takes an integer or a tuple of {count} {kind} for {argument}, got {value!r}.")
    return tuple(values)


def one_of(value: Any, allowed: Sequence[str], argument: str, owner: str) -> str:
    """A name given as an argument, in lower case.

    Raises:
        ValueError: it is none of those allowed.
    """
    name = value.lower() if isinstance(value, str) else value
    if name not in allowed:
        raise ValueError(f"{owner} takes one of {', '.join(map(repr, allowed))} for {argument}, got {value!r}.")
    return name
