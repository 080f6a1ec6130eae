"""Names that are not taken yet: `dense`, `dense_1`, `dense_2` ..."""

from __future__ import annotations

from collections.abc import Container, Iterable

__all__ = ["numbered_name", "unique_name", "unique_names"]


def numbered_name(base: str, number: int) -> str:
    """`base` for 0, then `base_1`, `base_2` ..."""
    return f"{base}_{number}" if number else base


def unique_name(base: str, taken: Container[str]) -> str:
    """`base`, or the first of `base_1`, `base_2` ... that is not taken."""
    number = 0
    while (name := numbered_name(base, number)) in taken:
        number += 1
    return name


def unique_names(names: Iterable[str]) -> list[str]:
    """Each name, numbered where it has been given before: `a, b, a` becomes `a, b, a_1`."""
    found: dict[str, None] = {}
    for name in names:
        found[unique_name(name, found)] = None
    return list(found)
