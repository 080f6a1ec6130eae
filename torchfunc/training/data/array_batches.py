"""Batches of arrays in memory, gathered batch by batch and never row by row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfunc.batch_parts import BatchPart
from torchfunc.structures import leaves, map_structure
from torchfunc.training.data.arrays import Arrays, Data
from torchfunc.training.data.batches import Batches, row_order
from torchfunc.training.data.buffers import BufferRing
from torchfunc.training.data.parts import PartBatch
from torchfunc.training.data.transfer import prefetched
from torchfunc.training.data.wide_tables import is_wide, wide_batches
from torchfunc.training.distributed.processes import Processes

__all__ = ["ArrayBatches", "DeferredBatch", "gathered"]


class DeferredBatch(NamedTuple):
    """A batch that is gathered within the step.

    Attributes:
        data: all the data.
        rows: the numbers of the batch's rows `(batch,)`.
    """

    data: Data
    rows: Tensor


def gathered(batch: Data | DeferredBatch | PartBatch) -> Data | PartBatch:
    """The tensors of a batch."""
    if isinstance(batch, PartBatch):
        return PartBatch(gathered(batch.data), batch.part)
    if not isinstance(batch, DeferredBatch):
        return batch
    return map_structure(lambda leaf: None if leaf is None else leaf.index_select(0, batch.rows), batch.data)


class ArrayBatches(Batches):
    """Batches of arrays that lie in memory.

    Each batch is gathered with one `index_select` an array (or is a view, without shuffling), by one permutation an
    epoch from torch's global generator.

    Args:
        arrays: the data.
        batch_size: rows a batch; the last one holds what is left.
        shuffle: whether to take the rows in a new order each time; "batch" mixes only within each batch.
        device: where batches are needed. Arrays that fit there are moved as a whole.
        processes: if there are several, each yields its part of each batch, a `PartBatch`.

    Attributes:
        arrays: the data, all on one device.
        batch_size: rows a batch.
        deferred: whether to yield `DeferredBatch`es, if the data are on the device that needs them.
    """

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        shuffle: bool | str,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        self.batch_size = batch_size
        self._processes = processes
        self.deferred = False
        self._shuffle = shuffle
        self._device = device
        tensors = arrays.tensors
        # All arrays are on one device, so that one index serves them all.
        fits = any(leaf.device == device for leaf in tensors) or _fits(tensors, device)
        self._home = device if fits else torch.device("cpu")
        self.arrays = arrays.to(self._home)

    @property
    def num_batches(self) -> int:
        """Batches of a pass, with the short last one."""
        return math.ceil(self.arrays.rows / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        rows, data = self.arrays.rows, self.arrays.packed
        order = row_order(rows, self.batch_size, self._shuffle, self._processes)
        order = None if order is None else order.to(self._home)
        if self.deferred and self._home == self._device:
            order = torch.arange(rows, device=self._home) if order is None else order
            yield from self._in_parts(DeferredBatch(data, part) for part in self._row_numbers(order))
            return
        parts: Iterator[Any] = self._own_rows() if order is None else self._row_numbers(order)
        one_process_on_cpu = self._processes is None and self._device.type == "cpu"
        if one_process_on_cpu and any(leaves(map_structure(is_wide, data, is_leaf=is_wide))):
            yield from self._with_wide_tables(data, order, list(parts))
            return
        batches = self._each_alone(data, order, parts)
        yield from self._in_parts(batches if self._home == self._device else prefetched(batches, self._device))

    def _with_wide_tables(self, data: Data, order: Tensor | None, parts: Sequence[slice | Tensor]) -> Iterator[Data]:
        def batches_of(part: Any) -> Iterator[Any]:
            if is_wide(part):
                return wide_batches(part, order, self.batch_size, batches_of)
            taker = self._taker(part, gathers=order is not None)
            return itertools.repeat(None) if taker is None else map(taker, parts)

        sources = map_structure(batches_of, data, is_leaf=is_wide)
        for _ in parts:
            yield map_structure(next, sources)

    def _each_alone(self, data: Data, order: Tensor | None, parts: Iterator[Any]) -> Iterator[Data]:
        takers: Any = map_structure(partial(self._taker, gathers=order is not None), data)

        def flat_batch(rows: slice | Tensor) -> Data:
            return tuple([take(rows) for take in takers])

        def nested_batch(rows: slice | Tensor) -> Data:
            batch: Data = map_structure(lambda take: take if take is None else take(rows), takers)
            return batch

        # Most data are a tensor or a tuple of tensors, for which a walk takes longer than gathering.
        if isinstance(data, Tensor):
            batch_of = takers
        else:
            is_flat = type(data) is tuple and all(isinstance(each, Tensor) for each in data)
            batch_of = flat_batch if is_flat else nested_batch
        return map(batch_of, parts)

    def _row_numbers(self, order: Tensor) -> Iterator[Tensor]:
        """The rows of each batch, or of this process' part of it."""
        return (
            iter(order.split(self.batch_size)) if self._processes is None else map(order.__getitem__, self._own_rows())
        )

    def _own_rows(self) -> Iterator[slice]:
        """Where each batch lies, or this process' part of it: a row that does not count where it has none."""
        for start in range(0, self.arrays.rows, self.batch_size):
            count = min(self.batch_size, self.arrays.rows - start)
            own = range(count) if self._processes is None else self._processes.own_rows(count)
            yield slice(start + own.start, start + own.stop) if own else slice(start, start + 1)

    def _in_parts(self, batches: Iterator[Data]) -> Iterator[Any]:
        """Batches with what part of the whole they are, if there are several processes."""
        if self._processes is None:
            return batches
        totals = (
            min(self.batch_size, self.arrays.rows - start) for start in range(0, self.arrays.rows, self.batch_size)
        )
        return map(PartBatch, batches, map(self._part, totals))

    def _part(self, total: int) -> BatchPart:
        assert self._processes is not None
        self._processes.align_generators(self._device)
        return BatchPart(len(self._processes.own_rows(total)), total, self._processes.rows_group)

    def _taker(self, leaf: Tensor | None, gathers: bool) -> Callable[[Any], Tensor] | None:
        """A function that gives rows of a tensor, by a slice or by their indices."""
        if leaf is None:
            return None
        if self._device.type == "cuda" and self._home != self._device:
            return partial(_pinned, leaf)
        if not gathers:
            return leaf.__getitem__
        if leaf.is_cpu and type(leaf) is Tensor and not leaf.requires_grad:
            return _Gatherer(leaf, min(self.batch_size, self.arrays.rows)).take
        return partial(leaf.index_select, 0)


def _pinned(leaf: Tensor, rows: slice | Tensor) -> Tensor:
    """Rows in memory that a device reads by itself. torch keeps such memory for reuse, and knows when it is free."""
    if isinstance(rows, slice):
        return leaf[rows].pin_memory()
    target = torch.empty((len(rows), *leaf.shape[1:]), dtype=leaf.dtype, pin_memory=True)
    return torch.index_select(leaf.detach(), 0, rows, out=target)


class _Gatherer:
    """Gathers rows of a tensor into memory that nothing else refers to.

    Args:
        source: the tensor whose rows are wanted.
        rows: how many at most.
    """

    def __init__(self, source: Tensor, rows: int) -> None:
        self._source, self._rows = source, rows
        self._ring = BufferRing((rows, *source.shape[1:]), source.dtype)

    def take(self, rows: Tensor) -> Tensor:
        """These rows."""
        buffer = self._ring.next()
        count = rows.shape[0]
        target = buffer if count == self._rows else buffer[:count]
        torch.index_select(self._source, 0, rows, out=target)
        return target.detach()


def _fits(tensors: list[Tensor], device: torch.device) -> bool:
    """Whether a CUDA device has room for all of them and as much again."""
    if device.type != "cuda":
        return False
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return 2 * size < torch.cuda.mem_get_info(device)[0]
