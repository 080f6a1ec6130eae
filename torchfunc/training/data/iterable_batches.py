"""Batches that something else makes: a DataLoader, a generator, a sequence of batches, a torch Dataset."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.training.data.arrays import Arrays, ClassWeight, Data, unpack_x_y_sample_weight
from torchfunc.training.data.batches import Batches, row_order
from torchfunc.training.data.transfer import prefetched

__all__ = ["IterableBatches", "SequenceReader", "dataset_loader", "is_sequence"]


class IterableBatches(Batches):
    """Batches that something else makes: a DataLoader, a generator, any iterable of batches.

    Args:
        source: gives `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, of tensors or arrays, one batch at a time. Its
            `on_epoch_begin` and `on_epoch_end`, if it has them, are called around each epoch.
        device: where batches are needed.
        class_weight: weights by class index, turned into sample weights batch by batch.
    """

    def __init__(self, source: Iterable[Any], device: torch.device, class_weight: ClassWeight | None) -> None:
        self._source = source
        self._device = device
        self._class_weight = class_weight
        self.restarts = not isinstance(source, Iterator)

    @property
    def num_batches(self) -> int | None:
        """Batches of a pass, None if that is not known. It may change between epochs."""
        # An IterableDataset's DataLoader has a `len` that raises TypeError.
        try:
            return len(self._source) if isinstance(self._source, Sized) else None
        except TypeError:
            return None

    def on_epoch_begin(self) -> None:
        """Tell the source."""
        if hasattr(self._source, "on_epoch_begin"):
            self._source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the source."""
        if hasattr(self._source, "on_epoch_end"):
            self._source.on_epoch_end()

    def __iter__(self) -> Iterator[Data]:
        yield from prefetched(map(self._as_tensors, self._source), self._device)

    def _as_tensors(self, batch: Any) -> Data:
        arrays = Arrays.parse(*unpack_x_y_sample_weight(batch)).weighted(self._class_weight)
        if self.check is not None:
            self.check(arrays.packed)
        return arrays.packed


def is_sequence(x: Any) -> bool:
    """Whether `x[0]`, `x[1]` ... are batches, as with Keras' `PyDataset` (`Sequence` by its older name)."""
    if not hasattr(type(x), "__getitem__") or isinstance(x, (Mapping, str, bytes)):
        return False
    return hasattr(x, "on_epoch_end") or (hasattr(type(x), "__len__") and not hasattr(type(x), "__iter__"))


class SequenceReader:
    """The batches of a `PyDataset`, or of anything with `__getitem__` and `__len__`, for `IterableBatches`.

    With several `workers` they are made ahead, in threads or (`use_multiprocessing`) processes, and come in order.

    Args:
        sequence: gives batch number i as `sequence[i]`; `num_batches` (None for no end) or `len` says how many.
        shuffle: whether to take the batches (not the rows in them) in a new order each epoch.
    """

    def __init__(self, sequence: Any, shuffle: bool) -> None:
        self._sequence = sequence
        self._shuffle = shuffle

    @property
    def endless(self) -> bool:
        """Whether there is no last batch."""
        return self._count() is None

    def _count(self) -> int | None:
        return self._sequence.num_batches if hasattr(self._sequence, "num_batches") else len(self._sequence)

    def __len__(self) -> int:
        count = self._count()
        if count is None:
            raise TypeError("There is no end to these batches.")
        return count

    def on_epoch_begin(self) -> None:
        """Tell the sequence."""
        if hasattr(self._sequence, "on_epoch_begin"):
            self._sequence.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the sequence."""
        if hasattr(self._sequence, "on_epoch_end"):
            self._sequence.on_epoch_end()

    def __iter__(self) -> Iterator[Any]:
        count = self._count()
        order = None if count is None else row_order(count, 1, self._shuffle)
        numbers: Iterable[int] = order.tolist() if order is not None else _up_to(count)
        workers = getattr(self._sequence, "workers", 1)
        ahead = max(getattr(self._sequence, "max_queue_size", 10), workers)
        if workers > 0 and getattr(self._sequence, "use_multiprocessing", False):
            return iter(_in_processes(self._sequence, numbers, workers, ahead))
        if workers > 1:
            return _in_threads(self._sequence, numbers, workers, ahead)
        return map(self._sequence.__getitem__, numbers)


def _up_to(count: int | None) -> Iterable[int]:
    return itertools.count() if count is None else range(count)


def _in_threads(sequence: Any, numbers: Iterable[int], workers: int, ahead: int) -> Iterator[Any]:
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Any]] = deque()
    try:
        for number in numbers:
            waiting.append(pool.submit(sequence.__getitem__, number))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _in_processes(sequence: Any, numbers: Iterable[int], workers: int, ahead: int) -> DataLoader[Any]:
    return DataLoader(
        sequence,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=math.ceil(ahead / workers),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


class _RowNumbers:
    """Batches of row numbers for a DataLoader, drawn as `ArrayBatches` draws them."""

    def __init__(self, rows: int, batch_size: int, shuffle: bool | str) -> None:
        self._rows, self._batch_size, self._shuffle = rows, batch_size, shuffle

    def __len__(self) -> int:
        return math.ceil(self._rows / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = row_order(self._rows, self._batch_size, self._shuffle)
        numbers = range(self._rows) if order is None else order.tolist()
        for start in range(0, self._rows, self._batch_size):
            yield list(numbers[start : start + self._batch_size])


def dataset_loader(dataset: Dataset[Any], batch_size: int, shuffle: bool | str) -> DataLoader[Any]:
    """Batches of a Dataset's samples, in this process.

    A map-style one is asked for whole batches if it has `__getitems__`, and its rows are taken in the order in which
    `ArrayBatches` takes those of arrays.

    Raises:
        ValueError: a map-style Dataset without a length.
    """
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size, collate_fn=_collate)
    if not isinstance(dataset, Sized):
        raise ValueError(
            f"{type(dataset).__name__} has no `__len__`, so it is not known which rows there are. Add one, or give a "
            "DataLoader with a sampler."
        )
    # A generator of its own, so that the loader's seed for workers that it has not is not drawn from the global one.
    numbers = _RowNumbers(len(dataset), batch_size, shuffle)
    return DataLoader(dataset, batch_sampler=numbers, collate_fn=_collate, generator=torch.Generator())


def _collate(samples: list[Any]) -> Any:
    """One batch of samples. NumPy's and Python's floats become `config.floatx()`, as they do in arrays."""
    batch = default_collate(samples)
    leaves, structure = tree_flatten(batch)
    given = tree_leaves(samples[0])
    if len(given) != len(leaves):
        return batch
    for index, (value, leaf) in enumerate(zip(given, leaves, strict=True)):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not isinstance(value, Tensor):
            leaves[index] = leaf.to(as_dtype(floatx()))
    return tree_unflatten(leaves, structure)
