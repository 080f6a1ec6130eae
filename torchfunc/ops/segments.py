"""Sums, products and extremes of rows that belong together."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfunc.ops.tensors import TensorLike, as_tensor

__all__ = [
    *("segment_max", "segment_min", "segment_prod", "segment_sum"),
]


def segment_sum(
    data: TensorLike, segment_ids: TensorLike, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """For each segment the sum of the rows of `data` that have its number; 0 for one of no rows.

    Args:
        segment_ids: (rows,); a number that is negative, or not below `num_segments`, leaves the row out.
        num_segments: how many segments; by default the largest number plus 1.
        sorted: accepted for compatibility with Keras, without effect.

    >>> ops.segment_sum([1, 10, 100], [0, 0, 2])
    tensor([ 11,   0, 100])
    """
    return _segments("sum", data, segment_ids, num_segments)


def segment_prod(
    data: TensorLike, segment_ids: TensorLike, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """For each segment the product of the rows of `data` that have its number; 1 for one of no rows.

    Args:
        segment_ids, num_segments, sorted: as for `segment_sum`.

    >>> ops.segment_prod([2, 3, 5], [0, 0, 2])
    tensor([6, 1, 5])
    """
    return _segments("prod", data, segment_ids, num_segments)


def segment_max(
    data: TensorLike, segment_ids: TensorLike, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """For each segment the largest of the rows of `data` that have its number; minus infinity for one of no rows.

    Args:
        segment_ids, num_segments, sorted: as for `segment_sum`.

    >>> ops.segment_max([1, 10, 100], [0, 0, 1])
    tensor([ 10, 100])
    """
    return _segments("amax", data, segment_ids, num_segments)


def segment_min(
    data: TensorLike, segment_ids: TensorLike, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """For each segment the smallest of the rows of `data` that have its number; infinity for one of no rows.

    Args:
        segment_ids, num_segments, sorted: as for `segment_sum`.

    >>> ops.segment_min([1, 10, 100], [0, 0, 1])
    tensor([  1, 100])
    """
    return _segments("amin", data, segment_ids, num_segments)


def _segments(kind: str, data: TensorLike, segment_ids: TensorLike, count: int | None) -> Tensor:
    """Rows with a negative number, or one beyond the last segment, are left out."""
    data, ids = as_tensor(data), as_tensor(segment_ids).to(torch.int64)
    if count is None:
        count = int(ids.max()) + 1
    neutral = {"sum": 0, "prod": 1, "amax": -torch.inf, "amin": torch.inf}[kind]
    if not data.dtype.is_floating_point and kind in ("amax", "amin"):
        neutral = torch.iinfo(data.dtype).min if kind == "amax" else torch.iinfo(data.dtype).max
    # Those that are left out go into one row more.
    ids = torch.where((ids < 0) | (ids >= count), count, ids)
    ids = torch.reshape(ids, (-1, *[1] * (data.ndim - 1))).expand_as(data)
    start = torch.full((count + 1, *data.shape[1:]), neutral, dtype=data.dtype)
    return torch.scatter_reduce(start, 0, ids, data, kind)[:count]
