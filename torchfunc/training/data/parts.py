"""`PartBatch`: the part of a batch that one of several processes has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from torchfunc.batch_parts import BatchPart
from torchfunc.structures import first_leaf, map_structure
from torchfunc.training.data.arrays import Data
from torchfunc.training.data.batches import Batches
from torchfunc.training.distributed.processes import Processes

__all__ = ["ExchangedBatches", "PartBatch", "data_of"]


class PartBatch(NamedTuple):
    """The part of a batch that this process has.

    Attributes:
        data: the rows; one that does not count if there are none.
        part: how many there are, here and in all processes.
    """

    data: Data
    part: BatchPart


def data_of(batch: Data | PartBatch) -> Data:
    """The data of a batch."""
    return batch.data if isinstance(batch, PartBatch) else batch


class ExchangedBatches(Batches):
    """Batches of which each process has its own: together they are one batch, however many rows each has.

    A process whose batches end before those of others goes on with a row that does not count, until all have ended.

    Args:
        batches: those of this process.
        processes: all of them.
        device: where batches are needed.
    """

    def __init__(self, batches: Batches, processes: Processes, device: torch.device) -> None:
        self._batches = batches
        self._processes = processes
        self._device = device
        self.restarts = batches.restarts

    @property
    def check(self) -> Any:
        """As of the batches."""
        return self._batches.check

    @check.setter
    def check(self, check: Any) -> None:
        self._batches.check = check

    @property
    def num_batches(self) -> int | None:
        """Of this process."""
        return self._batches.num_batches

    def on_epoch_begin(self) -> None:
        """Tell the source."""
        self._batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the source."""
        self._batches.on_epoch_end()

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._batches)
        spare: Data = None
        while True:
            batch = self._own_batch(batches)
            rows = 0 if batch is None else first_leaf(batch).shape[0]
            counts = self._processes.gather_counts(rows)
            if not any(counts):
                return
            if batch is not None:
                spare = map_structure(lambda leaf: None if leaf is None else leaf[:1].clone(), batch)
            # Somebody who never had a batch gets a row of another's.
            lacking = self._processes.gather_counts(int(spare is None)) if 0 in counts else [0]
            if any(lacking):
                source = next(rank for rank, count in enumerate(counts) if count)
                sent = self._processes.send(_moved(spare, torch.device("cpu")), source)
                spare = _moved(sent, self._device) if spare is None else spare
            self._processes.align_generators(self._device)
            part = BatchPart(rows, sum(counts), self._processes.rows_group)
            yield PartBatch(spare if batch is None else batch, part)

    def _own_batch(self, batches: Iterator[Data]) -> Data:
        """The next batch, None if there is none: that of the first of the processes that get the same rows."""
        batch = next(batches, None)
        if not self._processes.share_rows:
            return batch
        return _moved(self._processes.first_of_part(_moved(batch, torch.device("cpu"))), self._device)


def _moved(data: Data, device: torch.device) -> Data:
    moved: Data = map_structure(lambda leaf: None if leaf is None else leaf.to(device), data)
    return moved
