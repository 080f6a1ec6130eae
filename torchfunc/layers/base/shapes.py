"""Shapes, alone or in nested lists, tuples and dicts; None stands for an unknown size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from torchfunc.structures import map_structure

__all__ = ["Shape", "Shapes", "declared_input_shape", "differ", "is_shape", "map_shapes", "merge_shapes"]

Shape: TypeAlias = "tuple[int | None, ...]"
# One shape, or nested lists, tuples and dicts of them, as the tensors are nested. Any, since most layers take one
# structure only, and would have to cast a union to it.
Shapes: TypeAlias = Any

_SIZE_TYPES = (int, type(None), torch.SymInt)


def declared_input_shape(kwargs: dict[str, Any]) -> Shape | None:
    """Remove the arguments for a first layer in older guides from `kwargs`; return the batch shape they declare."""
    input_dim = kwargs.pop("input_dim", None)
    shape = kwargs.pop("input_shape", (input_dim,) if input_dim is not None else None)
    batch_shape = kwargs.pop("batch_input_shape", kwargs.pop("batch_shape", None))
    if batch_shape is not None:
        return tuple(batch_shape)
    return None if shape is None else (None, *shape)


def is_shape(value: object) -> bool:
    """Whether `value` is one shape, and not a list of them."""
    return isinstance(value, (tuple, list)) and all(isinstance(size, _SIZE_TYPES) for size in value)


def differ(first: Sequence[int | None], second: Sequence[int | None]) -> bool:
    """Whether two shapes cannot be the same, whatever their unknown sizes turn out to be."""
    return len(first) != len(second) or any(
        a != b for a, b in zip(first, second, strict=True) if a is not None and b is not None
    )


def map_shapes(function: Callable[..., Any], first: Shapes, *others: Shapes) -> Any:
    """`map_structure` whose leaves are shapes, given as tuples, and in which None stays None."""

    def apply(*shapes: Sequence[int | None] | None) -> Any:
        return None if shapes[0] is None else function(*(None if shape is None else tuple(shape) for shape in shapes))

    return map_structure(apply, first, *others, is_leaf=is_shape)


def merge_shapes(first: Shapes, second: Shapes) -> Shapes:
    """What two structures of shapes have in common: None where the sizes differ."""
    return map_shapes(
        lambda a, b: tuple(x if x == y else None for x, y in zip(a, b, strict=True)),
        first,
        second,
    )
