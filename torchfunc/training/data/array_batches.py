"""Arrays in memory, dealt out by whole batches: gathered, never row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from torchfunc.training.data.arrays import check_rows, map_leaves, named_leaves, pack_x_y_sample_weight
from torchfunc.training.data.transfer import moved, prefetched

__all__ = ["ArrayBatches", "Batches", "Rows", "gathered", "row_order"]


class Rows(NamedTuple):
    """A batch that is still to be gathered.

    Attributes:
        tensors: all the data.
        numbers: the numbers of the batch's rows.
    """

    tensors: Any
    numbers: Tensor


def gathered(batch: Any) -> Any:
    """The tensors of a batch."""
    if not isinstance(batch, Rows):
        return batch
    return map_leaves(lambda leaf: leaf.index_select(0, batch.numbers), batch.tensors)


class Batches:
    """Something that can be gone through batch by batch, each `x`, `(x, y)` or `(x, y, sample_weight)` of tensors."""

    # Whether each iteration begins anew, as that of a generator does not.
    restarts = True
    # Called with each batch before it goes to the device, where batches are not there to be checked beforehand.
    check: Callable[[Any], None] | None = None

    @property
    def num_batches(self) -> int | None:
        """Batches of a pass, None if that is not known."""
        raise NotImplementedError

    def on_epoch_begin(self) -> None:
        """Called before the first batch of an epoch."""

    def on_epoch_end(self) -> None:
        """Called after the last batch of an epoch."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError


class ArrayBatches(Batches):
    """Batches of arrays that lie in memory.

    Each batch is gathered with one `index_select` an array (or is a view, without shuffling), never row by row, by
    one permutation an epoch from torch's global generator. What wants to gather for itself, many batches in one
    graph say, takes `tensors` and an `epoch_indices()` for each epoch.

    Args:
        x, y, sample_weight: structures of tensors with equally many rows; y and sample_weight may be None.
        batch_size: rows a batch; the last one holds what is left.
        shuffle: whether to take the rows in a new order each time; "batch" mixes only within each batch.
        device: where batches are needed. Arrays that fit there are moved as a whole.

    Attributes:
        tensors: the data, `x`, `(x, y)` or `(x, y, sample_weight)`, all on one device.
        rows: how many rows they have.
        home: the device they are on.
        lazy: whether to give `Rows` in place of batches, where the data are on the device that needs them.
    """

    def __init__(
        self, x: Any, y: Any, sample_weight: Any, batch_size: int, shuffle: bool | str, device: torch.device
    ) -> None:
        self.rows = check_rows(x, y, sample_weight)
        self.batch_size = batch_size
        self.lazy = False
        self._shuffle = shuffle
        self._device = device
        data = pack_x_y_sample_weight(x, y, sample_weight)
        # All arrays lie together, so that one index serves them all.
        self.home = device if _is_on(data, device) or _fits(data, device) else torch.device("cpu")
        self.tensors = moved(data, self.home)

    @property
    def num_batches(self) -> int:
        """Batches of a pass, with the short last one."""
        return math.ceil(self.rows / self.batch_size)

    def epoch_indices(self) -> Tensor | None:
        """The rows of the next epoch in their order `(rows,)`, at home; None if they are taken as they lie.

        Each call draws a new permutation, as each pass over the batches does.
        """
        order = row_order(self.rows, self.batch_size, self._shuffle)
        return None if order is None else order.to(self.home)

    def __iter__(self) -> Iterator[Any]:
        order = self.epoch_indices()
        if self.lazy and self.home == self._device:
            order = torch.arange(self.rows, device=self.home) if order is None else order
            yield from (Rows(self.tensors, part) for part in order.split(self.batch_size))
            return
        starts = range(0, self.rows, self.batch_size)
        parts = order.split(self.batch_size) if order is not None else (slice(i, i + self.batch_size) for i in starts)
        leaves, structure = tree_flatten(self.tensors)
        takers = [leaf if leaf is None else self._taker(leaf, gathers=order is not None) for leaf in leaves]

        def batch_of(rows: slice | Tensor) -> Any:
            taken = [take if take is None else take(rows) for take in takers]
            return tuple(taken) if flat else tree_unflatten(taken, structure)

        # Unflattening takes longer than gathering; most data are a tuple of tensors.
        flat = type(self.tensors) is tuple and all(isinstance(each, Tensor) for each in self.tensors)
        batches = map(batch_of, parts)
        yield from batches if self.home == self._device else prefetched(batches, self._device)

    def _taker(self, leaf: Tensor, gathers: bool) -> Callable[[Any], Tensor]:
        """A function that gives rows of a tensor, by a slice or by their indices."""
        if self._device.type == "cuda" and self.home != self._device:
            return partial(_pinned, leaf)
        if not gathers:
            return leaf.__getitem__
        if leaf.is_cpu and type(leaf) is Tensor and not leaf.requires_grad:
            return _Buffers(leaf, min(self.batch_size, self.rows)).take
        return partial(leaf.index_select, 0)


def _pinned(leaf: Tensor, rows: slice | Tensor) -> Tensor:
    """Rows in memory that a device reads by itself. torch keeps such memory for reuse, and knows when it is free."""
    if isinstance(rows, slice):
        return leaf[rows].pin_memory()
    target = torch.empty((len(rows), *leaf.shape[1:]), dtype=leaf.dtype, pin_memory=True)
    return torch.index_select(leaf.detach(), 0, rows, out=target)


class _Buffers:
    """Memory that rows are gathered into, again and again: a large batch costs several times its copy in fresh memory.

    Whoever holds on to a batch or to a view of it (a callback, a metric that collects, outputs that alias inputs)
    keeps it: memory that is held is left to its holder. There are two buffers in turn, since a loop still holds one
    batch while it asks for the next.

    Args:
        source: the tensor whose rows are wanted.
        rows: how many at most.
    """

    def __init__(self, source: Tensor, rows: int) -> None:
        self._source = source
        self._shape = (rows, *source.shape[1:])
        self._ring = [self._new(), self._new()]

    def take(self, rows: Tensor) -> Tensor:
        """These rows, in memory of which nobody else knows."""
        buffer, storage, alone = self._ring.pop(0)
        if _holders(storage) != alone:
            buffer, storage, alone = self._new()
        self._ring.append((buffer, storage, alone))
        count = rows.shape[0]
        target = buffer if count == self._shape[0] else buffer[:count]
        torch.index_select(self._source, 0, rows, out=target)
        return target.detach()

    def _new(self) -> tuple[Tensor, torch.UntypedStorage, int]:
        with torch.inference_mode(False):
            buffer = torch.empty(self._shape, dtype=self._source.dtype)
        storage = buffer.untyped_storage()
        return buffer, storage, _holders(storage)


def _holders(storage: torch.UntypedStorage) -> int:
    """How many tensors share this memory. There is no public way to ask; torch's own CUDA graph trees ask like this."""
    return torch._C._storage_Use_Count(storage._cdata)


def row_order(rows: int, batch_size: int, shuffle: bool | str) -> Tensor | None:
    """A permutation of the rows `(rows,)` by torch's global generator; None without shuffling.

    Args:
        rows: how many there are.
        batch_size: rows a batch.
        shuffle: False, True, or "batch" to mix only within each batch.
    """
    if not shuffle:
        return None
    if shuffle == "batch":
        parts = torch.arange(rows).split(batch_size)
        return torch.cat([part[torch.randperm(len(part))] for part in parts])
    return torch.randperm(rows)


def _is_on(structure: Any, device: torch.device) -> bool:
    return any(leaf.device == device for _, leaf in named_leaves(structure, ""))


def _fits(structure: Any, device: torch.device) -> bool:
    """Whether a CUDA device has room for all of it and as much again."""
    if device.type != "cuda":
        return False
    size = sum(leaf.numel() * leaf.element_size() for _, leaf in named_leaves(structure, ""))
    return 2 * size < torch.cuda.mem_get_info(device)[0]
