"""Data of every kind made into batches: arrays, a DataLoader, a Dataset, a sequence or generator of batches."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.errors import add_note
from torchfunc.structures import map_structure, named_leaves
from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.arrays import (
    ANYTHING,
    Arrays,
    Data,
    Expected,
    WeighByClass,
    is_array_like,
    unpack_x_y_sample_weight,
)
from torchfunc.training.data.batches import Batches, row_order
from torchfunc.training.data.conversion import ArrayLike
from torchfunc.training.data.parts import ExchangedBatches
from torchfunc.training.data.sharded_loaders import sharded
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.data.transfer import prefetched
from torchfunc.training.distributed.processes import Processes

__all__ = [
    "IterableBatches",
    "Source",
    "is_one_batch",
    "make_batches",
    "parse_data",
    "takes_batch_size",
    "with_validation",
]

Source: TypeAlias = Any
"""What gives batches itself, or is made to: a Dataset, a DataLoader, a PyDataset, any iterable of batches."""

DEFAULT_BATCH_SIZE = 32


def parse_data(
    x: ArrayLike,
    y: ArrayLike = None,
    sample_weight: ArrayLike = None,
    expected: Expected = ANYTHING,
    batch_size: int | None = None,
) -> Arrays | Source:
    """Whatever `fit`, `evaluate` and `predict` take, parsed once.

    Args:
        x: arrays, tensors, or lists, tuples and dicts of them; or a `Dataset`, a `DataLoader` or any iterable of
            batches, which bring their own targets and weights.
        y, sample_weight: arrays like x; None beside an iterable.
        expected: what the model says of its data.
        batch_size: rows a batch for arrays and datasets; ignored beside an iterable, with a warning.

    Returns:
        `Arrays`, or x itself if it gives batches.

    Raises:
        ValueError: numbers of rows differ, an argument does not go with this kind of data, or x is no data.
    """
    if x is None:
        raise ValueError("There is no data: x is None.")
    if is_array_like(x):
        return Arrays.parse(x, y, sample_weight, expected)
    containers = (str, bytes, Mapping, list, tuple, set)
    if isinstance(x, containers) or not (isinstance(x, (Iterable, Dataset)) or _is_sequence(x)):
        strange = [f"{name} is {type(leaf).__name__}" for name, leaf in named_leaves(x, "x") if not is_array_like(leaf)]
        raise ValueError(
            f"Not data: {', '.join(strange) or 'x is empty'}. Give NumPy arrays, tensors, lists or dicts of them, "
            "pandas frames, a Dataset or DataLoader, a PyDataset, or an iterable of batches."
        )
    given = [name for name, value in {"y": y, "sample_weight": sample_weight}.items() if value is not None]
    if given:
        raise ValueError(
            f"x is a {type(x).__name__}, which gives whole batches (x, y) or (x, y, sample_weight) itself, so "
            f"{', '.join(given)} cannot be given beside it."
        )
    if batch_size is not None and not isinstance(x, Dataset):
        warnings.warn(
            f"x is a {type(x).__name__}, which gives whole batches itself: `batch_size` is ignored.", stacklevel=3
        )
    return x


def with_validation(
    data: Arrays | Source, validation_data: Any, fraction: float, expected: Expected = ANYTHING
) -> tuple[Arrays | Source, Arrays | Source | None]:
    """The data to train on and those to validate on, which are given or split off.

    Args:
        data: what `parse_data` returned.
        validation_data: `(x, y)`, `(x, y, sample_weight)`, what gives such batches, or None.
        fraction: the share of the rows to split off where no validation data are given.
        expected: what the model says of them.

    Raises:
        ValueError: as for `parse_data`; or the data to split are no arrays.
    """
    if validation_data is not None:
        return data, parse_data(*unpack_x_y_sample_weight(validation_data), expected)
    if not fraction:
        return data, None
    if not isinstance(data, Arrays):
        kind = type(data).__name__
        raise ValueError(f"`validation_split` needs arrays, got {kind}; use `validation_data`.")
    return data.split(fraction)


def takes_batch_size(data: Arrays | Source) -> bool:
    """Whether batches of this data are made here, rather than by itself."""
    return isinstance(data, (Arrays, Dataset))


def is_one_batch(data: Arrays | Source, batch_size: int | None, steps: int | None) -> TypeGuard[Arrays]:
    """Whether `make_batches` would make one batch of all the rows."""
    return isinstance(data, Arrays) and steps is None and data.rows <= (batch_size or DEFAULT_BATCH_SIZE)


def make_batches(
    data: Arrays | Source,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    class_weight: WeighByClass | None = None,
    *,
    continues: bool = False,
    device: torch.device,
    floats: torch.dtype | None = None,
    processes: Processes | None = None,
) -> EpochStream:
    """Batches of data that `parse_data` returned.

    Args:
        data: arrays, or what gives batches.
        batch_size: rows a batch for arrays and datasets, 32 by default (or what `steps` makes it).
        steps: batches an epoch, all by default.
        shuffle: whether arrays and map-style datasets are taken in a new order each epoch.
        class_weight: gives the weights for targets.
        continues: whether, with `steps`, an epoch begins where the last one ended.
        device: where batches are needed.
        floats: what NumPy's floats become; `config.floatx()` by default.
        processes: those that share the batches, if there are several. `batch_size` is that of all together; what a
            DataLoader or an iterable yields, that of each.

    Raises:
        ValueError: an argument does not go with this kind of data.
    """
    if shuffle not in (True, False, "batch"):
        raise ValueError(f"`shuffle` is True, False or 'batch', got {shuffle!r}.")
    # torch takes no integers of NumPy's here.
    size = int(batch_size or DEFAULT_BATCH_SIZE)
    if isinstance(data, Arrays) and batch_size is None and steps is not None:
        size = math.ceil(data.rows / steps)
    if type(data) is TensorDataset:
        # Its tensors need not be taken apart and put together again row by row.
        data = Arrays.parse(*unpack_x_y_sample_weight(data.tensors))
    if isinstance(data, Arrays):
        batches: Batches = ArrayBatches(data.weighted(class_weight), size, shuffle, device, processes)
        return EpochStream(batches, steps, continues)
    if isinstance(data, Dataset):
        data = _dataset_loader(data, size, shuffle, floats or as_dtype(floatx()), processes)
    elif _is_sequence(data):
        data = _SequenceReader(data, bool(shuffle), processes)
        if data.endless and steps is None:
            raise ValueError("There is no end to these batches (num_batches is None): say how many are a pass.")
    elif processes is not None and isinstance(data, DataLoader):
        data = sharded(data, processes, keeps_order=not continues)
    batches = IterableBatches(data, device, class_weight, floats)
    return EpochStream(batches if processes is None else ExchangedBatches(batches, processes, device), steps, continues)


class IterableBatches(Batches):
    """Batches that something else makes: a DataLoader, a generator, any iterable of batches.

    Args:
        source: gives `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, of tensors or arrays, one batch at a time. Its
            `on_epoch_begin` and `on_epoch_end`, if it has them, are called around each epoch.
        device: where batches are needed.
        class_weight: gives the sample weights for the targets of a batch.
        floats: what NumPy's floats become; `config.floatx()` by default.
    """

    def __init__(
        self,
        source: Iterable[Any],
        device: torch.device,
        class_weight: WeighByClass | None,
        floats: torch.dtype | None = None,
    ) -> None:
        self._expected = Expected(floats=floats)
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
        yield from prefetched(self._numbered(), self._device)

    def _numbered(self) -> Iterator[Data]:
        for number, batch in enumerate(self._source):
            try:
                tensors = self._as_tensors(batch)
            except (TypeError, ValueError) as error:
                add_note(error, f"This was in batch {number} of the {type(self._source).__name__}")
                raise
            yield tensors

    def _as_tensors(self, batch: Any) -> Data:
        arrays = Arrays.parse(*unpack_x_y_sample_weight(batch), self._expected).weighted(self._class_weight)
        if self.check is not None:
            self.check(arrays.packed)
        return arrays.packed


def _is_sequence(x: ArrayLike) -> bool:
    """Whether `x[0]`, `x[1]` ... are batches, as with Keras' `PyDataset` (`Sequence` by its older name)."""
    if not hasattr(type(x), "__getitem__") or isinstance(x, (Mapping, str, bytes)):
        return False
    return hasattr(x, "on_epoch_end") or (hasattr(type(x), "__len__") and not hasattr(type(x), "__iter__"))


class _SequenceReader:
    """The batches of a `PyDataset`, or of anything with `__getitem__` and `__len__`, for `IterableBatches`.

    With several `workers` they are made ahead, in threads or (`use_multiprocessing`) processes, and come in order.

    Args:
        sequence: gives batch number i as `sequence[i]`; `num_batches` (None for no end) or `len` says how many.
        shuffle: whether to take the batches (not the rows in them) in a new order each epoch.
        processes: if there are several, they take the batches in turns.
    """

    def __init__(self, sequence: Any, shuffle: bool, processes: Processes | None) -> None:
        self._sequence = sequence
        self._shuffle = shuffle
        self._processes = processes
        self._turn = slice(None) if processes is None else slice(processes.rank, None, processes.size)

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
        return count if self._processes is None else math.ceil(count / self._processes.size)

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
        order = None if count is None else row_order(count, 1, self._shuffle, self._processes)
        numbers: Iterable[int] = order.tolist() if order is not None else _up_to(count)
        numbers = itertools.islice(numbers, self._turn.start, None, self._turn.step)
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
    """Batches of row numbers for a DataLoader, drawn as `ArrayBatches` draws them.

    Of several processes each has its part of each batch, which may be none.
    """

    def __init__(self, rows: int, batch_size: int, shuffle: bool | str, processes: Processes | None) -> None:
        self._rows, self._batch_size, self._shuffle = rows, batch_size, shuffle
        self._processes = processes

    def __len__(self) -> int:
        return math.ceil(self._rows / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = row_order(self._rows, self._batch_size, self._shuffle, self._processes)
        numbers = range(self._rows) if order is None else order.tolist()
        for start in range(0, self._rows, self._batch_size):
            batch = list(numbers[start : start + self._batch_size])
            own = range(len(batch)) if self._processes is None else self._processes.own_rows(len(batch))
            if own:
                yield batch[own.start : own.stop]


def _dataset_loader(
    dataset: Dataset[Any], batch_size: int, shuffle: bool | str, floats: torch.dtype, processes: Processes | None
) -> DataLoader[Any]:
    """Batches of a Dataset's samples, in this process.

    A map-style one is asked for whole batches if it has `__getitems__`, and its rows are taken in the order in which
    `ArrayBatches` takes those of arrays.

    Raises:
        ValueError: a map-style Dataset without a length.
    """
    collate = partial(_collate, floats=floats)
    if isinstance(dataset, IterableDataset):
        # Of which each process has its own.
        own = batch_size if processes is None else math.ceil(batch_size / processes.size)
        return DataLoader(dataset, own, collate_fn=collate)
    if not isinstance(dataset, Sized):
        raise ValueError(
            f"{type(dataset).__name__} has no `__len__`, so it is not known which rows there are. Add one, or give a "
            "DataLoader with a sampler."
        )
    # A generator of its own, so that the loader's seed for workers that it has not is not drawn from the global one.
    numbers = _RowNumbers(len(dataset), batch_size, shuffle, processes)
    return DataLoader(dataset, batch_sampler=numbers, collate_fn=collate, generator=torch.Generator())


def _collate(samples: list[Any], floats: torch.dtype) -> Data:
    """One batch of samples. NumPy's and Python's floats get the type that they get in arrays."""

    def converted(leaf: Any, given: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not isinstance(given, Tensor):
            return leaf.to(floats)
        return leaf

    batch: Data = map_structure(converted, default_collate(samples), samples[0])
    return batch
