"""Datasets made of arrays: split in two, or cut into windows over time."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from torchfunc.training.data.arrays import Arrays
from torchfunc.training.data.conversion import to_tensors

__all__ = ["split_dataset", "timeseries_dataset_from_array"]


def split_dataset(
    dataset: Any,
    left_size: int | float | None = None,
    right_size: int | float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    preferred_backend: str | None = None,
) -> tuple[Dataset[Any], Dataset[Any]]:
    """Split data in a left and a right part, for training and testing, say.

    The left part holds the first rows and the right one the last. (With `shuffle=False` Keras' torch backend draws
    them at random nevertheless.)

    Args:
        dataset: a map-style torch Dataset, an array, or a list or tuple of arrays with equally many rows.
        left_size: rows of the left part, or its share (a float from 0 to 1); by default what the right one leaves.
        right_size: the like for the right part. At least one of the two is needed.
        shuffle: whether to mix the rows first.
        seed: of the order; by default it is drawn from torch's global generator.
        preferred_backend: None or "torch".

    Returns:
        two `TensorDataset`s for arrays (views of them, if not shuffled), else two `Subset`s.

    Raises:
        ValueError: the sizes do not fit the data.
        TypeError: this is no such data.

    >>> left, right = utils.split_dataset(np.arange(10), left_size=0.7)
    >>> len(left), len(right)
    (7, 3)
    """
    if preferred_backend not in (None, "torch"):
        raise ValueError(f"`preferred_backend` is None or 'torch', got {preferred_backend!r}.")
    if isinstance(dataset, Dataset):
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"{type(dataset).__name__} has no length, so it cannot be split. Give a map-style Dataset.")
        rows = len(dataset)
    elif isinstance(dataset, (np.ndarray, Tensor, list, tuple)):
        arrays = to_tensors(dataset if isinstance(dataset, (list, tuple)) else [dataset], "dataset")
        if isinstance(arrays, Tensor):  # a list of numbers
            arrays = [arrays]
        rows = Arrays.parse(list(arrays)).rows
    else:
        raise TypeError(f"`dataset` is a torch Dataset, an array or a list of arrays, got {type(dataset).__name__}.")
    left, right = _sizes(left_size, right_size, rows)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = torch.randperm(rows, generator=generator) if shuffle else None
    if isinstance(dataset, Dataset):
        numbers = list(range(rows)) if order is None else order.tolist()
        return Subset(dataset, numbers[:left]), Subset(dataset, numbers[rows - right :])
    first: Any = slice(left) if order is None else order[:left]
    last: Any = slice(rows - right, None) if order is None else order[rows - right :]
    return TensorDataset(*(array[first] for array in arrays)), TensorDataset(*(array[last] for array in arrays))


def _sizes(left: int | float | None, right: int | float | None, rows: int) -> tuple[int, int]:
    """Rows of both parts; shares are rounded."""
    if left is None and right is None:
        raise ValueError("Give `left_size` or `right_size`; both are None.")
    counts: list[int | None] = []
    for name, size in (("left_size", left), ("right_size", right)):
        if size is not None and (isinstance(size, bool) or not isinstance(size, Real)):
            raise TypeError(f"`{name}` is a number of rows or a share from 0 to 1, got {size!r}.")
        if size is not None and not 0 < size < (rows if isinstance(size, Integral) else 1):
            raise ValueError(f"`{name}` is a number of rows below {rows} or a share between 0 and 1, got {size!r}.")
        counts.append(None if size is None else int(size) if isinstance(size, Integral) else round(size * rows))
    first = rows - (counts[1] or 0) if counts[0] is None else counts[0]
    last = rows - first if counts[1] is None else counts[1]
    if first + last > rows or not first or not last:
        raise ValueError(f"`left_size={left}` and `right_size={right}` make {first} + {last} of {rows} rows.")
    return first, last


class _Windows(Dataset[Any]):
    """Windows `(length, ...)` of an array over time, with their targets if there are any.

    Args:
        data: the time steps `(steps, ...)`.
        targets: one for each window that can begin, or None.
        starts: where the windows begin `(windows,)`.
        offsets: the time steps of a window, counted from its start `(length,)`.
    """

    def __init__(self, data: Tensor, targets: Any, starts: Tensor, offsets: Tensor) -> None:
        self._data, self._targets, self._starts, self._offsets = data, targets, starts, offsets

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int | list[int]) -> Any:
        """One window, or for a list of numbers a batch of them."""
        starts = self._starts[index]
        windows = self._data[starts.unsqueeze(-1) + self._offsets]
        return windows if self._targets is None else (windows, self._targets[starts])


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> Any:
    """Windows of a time series, for `fit` or a loop of your own.

    The window that begins at time i holds the time steps i, i + sampling_rate, i + 2 * sampling_rate ... Each batch is
    gathered as a whole. NumPy floats become `config.floatx()`.

    Args:
        data: time steps `(steps, ...)`, equally far apart.
        targets: `targets[i]` goes with the window that begins at time i; None for windows alone.
        sequence_length: time steps of a window.
        sequence_stride: from the start of one window to that of the next.
        sampling_rate: from one time step of a window to the next.
        batch_size: windows a batch; None for a Dataset of single windows.
        shuffle: whether the windows come in a new order each time.
        seed: of the order; by default it is drawn from torch's global generator.
        start_index, end_index: use only the time steps from the first to just before the second.

    Returns:
        a `DataLoader` of batches `(batch, sequence_length, ...)` or of such with their targets `(batch, ...)`; with
        `batch_size=None` a map-style `Dataset`.

    Raises:
        ValueError: an index, a stride or the rate lies outside the data, or no window fits in.

    >>> windows = utils.timeseries_dataset_from_array(np.arange(5), targets=None, sequence_length=3, batch_size=2)
    >>> [batch.tolist() for batch in windows]
    [[[0, 1, 2], [1, 2, 3]], [[2, 3, 4]]]
    """
    steps = len(data)
    first, last = start_index or 0, steps if end_index is None else end_index
    if not 0 <= first < steps:
        raise ValueError(f"`start_index` lies between 0 and {steps - 1} for {steps} time steps, got {start_index}.")
    if end_index is not None and not first < end_index < steps:
        raise ValueError(f"`end_index` lies above `start_index` ({first}) and below {steps}, got {end_index}.")
    for name, number in (("sampling_rate", sampling_rate), ("sequence_stride", sequence_stride)):
        if not 0 < number < steps:
            raise ValueError(f"`{name}` lies between 1 and {steps - 1} for {steps} time steps, got {number}.")
    count = last - first - (sequence_length - 1) * sampling_rate
    if targets is not None:
        count = min(count, len(targets))
    if sequence_length < 1 or count < 1:
        raise ValueError(f"No window of {sequence_length} steps at a rate of {sampling_rate} fits in {last - first}.")

    series = to_tensors(data, "data")[first:last]
    wanted = None if targets is None else to_tensors(targets, "targets")[first:last]
    windows = _Windows(
        series, wanted, torch.arange(0, count, sequence_stride), sampling_rate * torch.arange(sequence_length)
    )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if batch_size is None and not shuffle:
        return windows
    if batch_size is None:
        return Subset(windows, torch.randperm(len(windows), generator=generator).tolist())
    order: Any = RandomSampler(windows, generator=generator) if shuffle else SequentialSampler(windows)
    # Without a batch size the loader hands each list of numbers to the Dataset, which gathers the batch.
    numbers = BatchSampler(order, batch_size, drop_last=False)
    return DataLoader(windows, batch_size=None, sampler=numbers, generator=generator)
