"""Wide tables: dicts and lists of many small columns, of which the rows of several batches are gathered together.

To gather 64 rows of a column takes as long as to gather a few thousand. So rows are gathered for several batches ahead,
column by column, into one block; the columns of a batch are views of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchfunc.graph.torch_internals import unbind_untracked
from torchfunc.training.data.buffers import BufferRing

__all__ = ["WideTable", "is_wide", "wide_batches"]

WideTable: TypeAlias = Any
"""A dict, list or tuple of tensors, and of None for what is not given."""

# Columns of so few bytes a row are gathered together where there are so many of one type and shape.
_SMALL, _MANY = 64, 8
# A block has at most so many bytes and batches: nothing is packed as a whole, which would hold large data twice.
_BLOCK_BYTES, _BLOCK_BATCHES = 4 * 2**20, 64


def is_wide(value: Any) -> bool:
    """Whether this is a dict, list or tuple of tensors with many small ones of one type and shape."""
    if not isinstance(value, (dict, list, tuple)) or len(value) < _MANY:
        return False
    items = list(value.values() if isinstance(value, dict) else value)
    if not all(item is None or type(item) is Tensor for item in items):
        return False
    return any(len(places) >= _MANY for places in _alike(items))


def wide_batches(
    table: WideTable, order: Tensor | None, batch_size: int, alone: Callable[[Tensor], Iterator[Tensor]]
) -> Iterator[WideTable]:
    """The batches of a wide table, one after the other, each a container of the same kind.

    Args:
        table: tensors of equally many rows.
        order: the numbers of the rows `(rows,)` in the order in which they are taken; None for the order they are in.
        batch_size: rows a batch; the last one holds what is left.
        alone: gives the batches of a column that is not gathered with others.
    """
    items: list[Tensor | None] = list(table.values() if isinstance(table, dict) else table)
    groups = [places for places in _alike(items) if len(places) >= _MANY]
    grouped = {place for places in groups for place in places}
    others = {place: alone(item) for place, item in enumerate(items) if item is not None and place not in grouped}
    blocks = [_blocks([items[place] for place in places], order, batch_size) for places in groups]  # type: ignore[misc]
    found = list(items)
    for parts in zip(*blocks, strict=True):
        for places, part in zip(groups, parts, strict=True):
            if len(places) == len(items):
                found[:] = part
            else:
                for place, column in zip(places, part, strict=True):
                    found[place] = column
        for place, batches in others.items():
            found[place] = next(batches)
        if isinstance(table, dict):
            yield dict(zip(table, found, strict=True))
        else:
            yield type(table)(*found) if hasattr(table, "_fields") else type(table)(found)


def _alike(items: Sequence[Tensor | None]) -> list[list[int]]:
    """The places of small columns, those of one type and shape together."""
    groups: dict[Any, list[int]] = {}
    for place, item in enumerate(items):
        if item is not None and item.is_cpu and not item.requires_grad and _row_bytes(item) <= _SMALL:
            groups.setdefault((item.dtype, item.shape[1:]), []).append(place)
    return list(groups.values())


def _row_bytes(column: Tensor) -> int:
    return column.element_size() * math.prod(column.shape[1:])


def _blocks(columns: Sequence[Tensor], order: Tensor | None, batch_size: int) -> Iterator[Sequence[Tensor]]:
    """The batches of columns of one type and shape."""
    rows = columns[0].shape[0]
    batch_bytes = max(batch_size * len(columns) * _row_bytes(columns[0]), 1)
    size = min(batch_size * min(max(_BLOCK_BYTES // batch_bytes, 1), _BLOCK_BATCHES), rows)
    ring = BufferRing((len(columns), size, *columns[0].shape[1:]), columns[0].dtype)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        block = ring.next()[:, : stop - start].detach()
        if order is None:
            torch.stack([column[start:stop] for column in columns], out=block)
        else:
            picked = order[start:stop]
            for column, target in zip(columns, block.unbind(), strict=True):
                torch.index_select(column, 0, picked, out=target)
        for part in block.split(batch_size, dim=1):
            yield unbind_untracked(part)
