"""Inputs nested in lists, tuples and dicts of lists, tuples and dicts, and the values given for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfunc.structures import Structure, holds_numbers

__all__ = ["arrays_in", "is_nested", "match_nested"]


def is_nested(structure: Structure) -> bool:
    """Whether there are containers in a container."""
    return _is_container(structure) and any(map(_is_container, _items(structure)))


def arrays_in(value: Any) -> list[Any]:
    """The arrays in nested containers, left to right. A list of numbers is one array."""
    if not _is_container(value) or holds_numbers(value):
        return [value]
    return [array for item in _items(value) for array in arrays_in(item)]


def match_nested(structure: Structure, value: Any) -> list[Any] | None:
    """The values for the leaves of a structure, in its order; None if they are nested otherwise.

    Keys that the structure does not have are passed over.
    """
    if isinstance(structure, Mapping):
        if not isinstance(value, Mapping) or not set(structure) <= set(value):
            return None
        pairs = [(each, value[key]) for key, each in structure.items()]
    elif isinstance(structure, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(structure):
            return None
        pairs = list(zip(structure, value, strict=True))
    else:
        found = arrays_in(value)
        return found if len(found) == 1 else None
    parts = [match_nested(*pair) for pair in pairs]
    return None if None in parts else [item for part in parts if part is not None for item in part]


def _is_container(value: Any) -> bool:
    return isinstance(value, (list, tuple, Mapping))


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, Mapping) else value
