"""Nested structures: the one walk through lists, tuples, dicts and slices that hold tensors, symbolic values or shapes.

Classes that are registered with torch (`torch.utils._pytree`) are opened only where the results of
modules are read; what users pass in is made of Python's containers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Structure", "first_leaf", "holds_numbers", "leaves", "map_structure", "named_leaves", "path_leaves"]

Structure: TypeAlias = Any
"""Any nesting of lists, tuples, named tuples, dicts and slices."""

# Most leaves are of these types. Checked first, since the check for a Mapping is slow.
_ATOMS = frozenset({Tensor, Parameter, bool, int, float, str, type(None)})


def map_structure(
    function: Callable[..., Any],
    structure: Structure,
    *others: Structure,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Structure:
    """Apply `function` to the leaves of nested lists, tuples, named tuples, dicts and slices.

    The result is made of new containers: lists, tuples, named tuples of the same class, dicts.

    Args:
        function: gets a leaf, and what stands at the same place of each of `others`.
        structure: the structure. Everything that is no container is a leaf, None too.
        *others: structures that have at least the containers of the first.
        is_leaf: says of a container that it is a leaf (one shape, say).

    Raises:
        ValueError: a list or tuple of `others` has another length than that of `structure`.
        KeyError: a dict of `others` lacks a key.
    """
    if type(structure) in _ATOMS or (is_leaf is not None and is_leaf(structure)):
        return function(structure, *others)
    if isinstance(structure, (tuple, list)):
        if others or is_leaf is not None:
            rows = zip(structure, *others, strict=True)
            items = [map_structure(function, *row, is_leaf=is_leaf) for row in rows]
        else:
            # The usual case, and a hot one: an atom costs no call.
            items = [function(item) if type(item) in _ATOMS else map_structure(function, item) for item in structure]
        if isinstance(structure, list):
            return items
        return type(structure)(*items) if hasattr(structure, "_fields") else tuple(items)
    # To ask an abstract class about a type that it has not met takes long.
    if hasattr(type(structure), "keys") and isinstance(structure, Mapping):
        return {
            key: map_structure(function, item, *[other[key] for other in others], is_leaf=is_leaf)
            for key, item in structure.items()
        }
    if isinstance(structure, slice):
        return slice(*[map_structure(function, part) for part in (structure.start, structure.stop, structure.step)])
    return function(structure, *others)


def leaves(structure: Structure, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves of a structure, left to right, as `map_structure` meets them."""
    found: list[Any] = []
    map_structure(found.append, structure, is_leaf=is_leaf)
    return found


def named_leaves(structure: Structure, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves that are not None, called `x`, `x[0]`, `x['title']` where `name` is "x"."""
    if isinstance(structure, Mapping):
        for key, value in structure.items():
            yield from named_leaves(value, f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, value in enumerate(structure):
            yield from named_leaves(value, f"{name}[{index}]")
    elif structure is not None:
        yield name, structure


def path_leaves(structure: Structure, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The leaves with where they stand: keys of dicts, fields of named tuples, positions in lists and tuples."""
    if isinstance(structure, Mapping):
        items: Any = structure.items()
    elif isinstance(structure, (list, tuple)):
        fields = getattr(structure, "_fields", None)
        items = zip(fields, structure, strict=True) if fields else enumerate(structure)
    else:
        yield path, structure
        return
    for key, item in items:
        yield from path_leaves(item, (*path, key))


def first_leaf(structure: Structure) -> Any:
    """The first leaf that is not None; None if there is none."""
    return next((leaf for _, leaf in named_leaves(structure, "")), None)


def holds_numbers(value: Any) -> bool:
    """Whether a list, by its first item, holds numbers (at any depth) and no arrays."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, (bool, int, float, complex, np.generic))
