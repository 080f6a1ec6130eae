"""Names that are not taken yet: `dense`, `dense_1`, `dense_2` ..."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator

__all__ = ["numbered_names", "unique_name", "unique_names"]


def numbered_names(base: str) -> Iterator[str]:
    """`base`, `base_1`, `base_2` ... without end."""
    yield base
    yield from (f"{base}_{number}" for number in itertools.count(1))


def unique_name(base: str, taken: Container[str]) -> str:
    """`base`, or the first of `base_1`, `base_2` ... that is not taken."""
    return next(name for name in numbered_names(base) if name not in taken)


def unique_names(names: Iterable[str]) -> list[str]:
    """Each name, numbered where it has been given before: `a, b, a` becomes `a, b, a_1`."""
    found: dict[str, None] = {}
    for name in names:
        found[unique_name(name, found)] = None
    return list(found)
