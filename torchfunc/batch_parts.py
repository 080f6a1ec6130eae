"""`BatchPart`: the part of a batch that one of several processes has, and sums over the whole batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

__all__ = ["BatchPart", "has_no_rows", "sum_over_processes", "without_rows"]


class BatchPart(NamedTuple):
    """The part of a batch that this process has; the others, one after the other, have the rest.

    What is a mean over the rows of a batch is the sum, over all processes, of `share` times the mean over their rows.

    Attributes:
        rows: how many rows are here. Where there are none, a row that does not count stands in for them.
        total: how many there are in all processes.
        group: the processes that have the parts, one for each; None for all.
    """

    rows: int
    total: int
    group: Any = None

    @property
    def share(self) -> float:
        """Of the whole batch."""
        return self.rows / self.total

    @property
    def ratio(self) -> float:
        """How many times as many rows the whole batch has; 0 where there are none here, since nothing counts then."""
        return self.total / self.rows if self.rows else 0.0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a number over all processes, of those that have rows. Gradients do not pass."""
        value = value.detach().clone() if self.rows else torch.zeros_like(value)
        distributed.all_reduce(value, group=self.group)
        return value


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is the sum of those that they have."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.contiguous().clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        return summed


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; gradients pass to all of them."""
    summed: Tensor = _Sum.apply(value)
    return summed


class _State:
    """Whether the process computes with a row that does not count."""

    no_rows = False


def has_no_rows() -> bool:
    """Whether the process computes with a row that does not count, so that all may take part in what they share."""
    return _State.no_rows


@contextlib.contextmanager
def without_rows() -> Iterator[None]:
    """Compute with a row that does not count."""
    _State.no_rows = True
    try:
        yield
    finally:
        _State.no_rows = False
