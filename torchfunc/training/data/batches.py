"""`Batches`: what can be iterated over batch by batch, and the order in which rows are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchfunc.training.data.arrays import Data
from torchfunc.training.distributed.processes import Processes

__all__ = ["Batches", "row_order"]


class Batches:
    """Batches that can be iterated over, each `x`, `(x, y)` or `(x, y, sample_weight)` of tensors.

    Attributes:
        restarts: whether each iteration starts from the beginning, as that of a generator does not.
        check: called with each batch before it is moved to the device, for batches that do not exist beforehand.
    """

    restarts = True
    check: Callable[[Data], None] | None = None

    @property
    def num_batches(self) -> int | None:
        """Batches of a pass, None if that is not known."""
        raise NotImplementedError

    def on_epoch_begin(self) -> None:
        """Called before the first batch of an epoch."""

    def on_epoch_end(self) -> None:
        """Called after the last batch of an epoch."""

    def __iter__(self) -> Iterator[Data]:
        raise NotImplementedError


def row_order(rows: int, batch_size: int, shuffle: bool | str, processes: Processes | None = None) -> Tensor | None:
    """A permutation of the rows `(rows,)` by torch's global generator; None without shuffling.

    Args:
        rows: how many there are.
        batch_size: rows a batch.
        shuffle: False, True, or "batch" to mix only within each batch.
        processes: all get the permutation that the first one draws.
    """
    if not shuffle:
        return None
    if processes is not None:
        with processes.first_generator():
            return row_order(rows, batch_size, shuffle)
    if shuffle == "batch":
        parts = torch.arange(rows).split(batch_size)
        return torch.cat([part[torch.randperm(len(part))] for part in parts])
    return torch.randperm(rows)
