"""Data dealt out batch by batch: from arrays, gathered by whole batches, or from an iterable such as a DataLoader."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

from torchfunc.training.data.array_batches import ArrayBatches, Batches
from torchfunc.training.data.arrays import (
    check_counts,
    check_rows,
    class_weights_to_sample_weights,
    is_array_like,
    named_leaves,
    to_tensors,
    unpack_x_y_sample_weight,
)
from torchfunc.training.data.iterable_batches import IterableBatches, SequenceReader, dataset_loader, is_sequence
from torchfunc.training.data.random_states import generator_states, set_generator_states

__all__ = ["ArrayBatches", "Batches", "EpochStream", "IterableBatches", "make_batches", "takes_batch_size"]

DEFAULT_BATCH_SIZE = 32


@dataclass
class EpochStream:
    """Batches dealt out epoch by epoch.

    Attributes:
        batches: where they come from.
        steps: batches an epoch; None takes all there are.
        goes_on: whether, with a number of steps, the next epoch begins where this one ended (training), or anew.
    """

    batches: Batches
    steps: int | None = None
    goes_on: bool = False

    def __post_init__(self) -> None:
        self._iterator: Iterator[Any] | None = None
        self._has_begun = False
        # Of the pass over `batches` that the last epoch belongs to: the generators' states when it began (noted for
        # training only), the batches dealt out before that epoch, and those of the epoch that are not dealt out again.
        self._pass_states: dict[str, Any] | None = None
        self._drawn = 0
        self._done = 0

    @property
    def num_batches(self) -> int | None:
        """Batches an epoch, None if that is not known."""
        return self.steps or self.batches.num_batches

    def defer_gathering(self) -> None:
        """Deal out arrays as `Rows`, to be gathered within a step, where nothing stands in the way."""
        if isinstance(self.batches, ArrayBatches) and self._iterator is None:
            self.batches.lazy = True

    def peek(self) -> Any:
        """The batch that the next epoch will begin with.

        Raises:
            ValueError: there are none.
        """
        begun, rest = self._start()
        first = begun[0]
        self._iterator = itertools.chain(begun, rest)
        return first

    def epoch(self) -> Iterator[Any]:
        """The batches of the next epoch.

        Raises:
            ValueError: there are none.
        """
        count, self._done = self._done, 0
        if count:
            assert self._iterator is not None
            rest, self._iterator = self._iterator, None
        else:
            begun, rest = self._start()
            count = 1
            yield begun.pop()  # not held here any longer, so that its memory can be used again
        for batch in itertools.islice(rest, None if self.steps is None else self.steps - count):
            count += 1
            yield batch
        if count == self.steps:
            self._iterator = rest if self.goes_on else None
            self._drawn += count
        self._has_begun = False
        self.batches.on_epoch_end()
        if self.steps is not None and count < self.steps:
            warnings.warn(
                f"The data ran out after {count} of {self.steps} steps, so this epoch is shorter. Give at least as "
                "many batches as there are steps in an epoch.",
                stacklevel=2,
            )

    def place(self, done: int = 0) -> dict[str, Any] | None:
        """Where the data stand after `done` batches of an epoch, or between two, for `take_up` in another process.

        None means that the next epoch begins a new pass over them.
        """
        if not done and self._iterator is None:
            return None
        return {"generators": self._pass_states, "drawn": self._drawn + done}

    def take_up(self, place: dict[str, Any], done: int = 0) -> Any:
        """Go to a place noted elsewhere, by drawing the batches before it. Returns the first of these.

        Raises:
            ValueError: there are fewer batches.
        """
        self._begin()
        set_generator_states(place["generators"])
        if self.batches.restarts or self._iterator is None:
            self._iterator = iter(self.batches)
        skipped = 0
        first = None
        for batch in itertools.islice(self._iterator, place["drawn"]):
            first = batch if skipped == 0 else first
            skipped += 1
        if skipped < place["drawn"]:
            raise ValueError(
                f"Training was interrupted after {place['drawn']} batches, but the data have only {skipped}. Take it "
                "up with the data that it began with."
            )
        self._pass_states = place["generators"]
        self._drawn = place["drawn"] - done
        self._done = done
        return first

    def _begin(self) -> None:
        if not self._has_begun:
            self.batches.on_epoch_begin()
            self._has_begun = True

    def _start(self) -> tuple[list[Any], Iterator[Any]]:
        """The next batch, in a list, from where the last epoch ended if there is more, and what comes after it."""
        self._begin()
        begun, self._iterator = self._iterator, None
        for first in begun or ():
            assert begun is not None
            return [first], begun
        if self.goes_on:
            self._pass_states = generator_states()
        self._drawn = 0
        iterator = iter(self.batches)
        for first in iterator:
            return [first], iterator
        raise ValueError(
            "The data gave no batches. A generator can be gone through only once: with several epochs give "
            "`steps_per_epoch`, or something that can be started again, such as a DataLoader."
        )


def make_batches(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    class_weight: Mapping[int, float] | None = None,
    *,
    goes_on: bool = False,
    device: torch.device,
) -> EpochStream:
    """Batches of whatever `fit`, `evaluate` and `predict` take.

    Args:
        x: arrays, tensors, or lists, tuples and dicts of them; or a `Dataset`, a `DataLoader` or any iterable of
            batches, which bring their own targets and weights.
        y, sample_weight: the like, for arrays only.
        batch_size: rows a batch for arrays and datasets, 32 by default (or what `steps` makes it).
        steps: batches an epoch, all by default.
        shuffle: whether arrays and map-style datasets are taken in a new order each epoch.
        class_weight: weights by class index.
        goes_on: whether, with `steps`, an epoch begins where the last one ended.
        device: where batches are needed.

    Raises:
        ValueError: numbers of rows differ, an argument does not go with this kind of data, or x is no data.
    """
    check_counts(batch_size=batch_size, steps=steps)
    if shuffle not in (True, False, "batch"):
        raise ValueError(f"`shuffle` is True, False or 'batch', got {shuffle!r}.")
    if x is None:
        raise ValueError("There is no data: x is None.")
    if is_array_like(x):
        x, y, sample_weight = to_tensors(x, "x"), to_tensors(y, "y"), to_tensors(sample_weight, "sample_weight")
        if class_weight is not None:
            sample_weight = class_weights_to_sample_weights(y, class_weight, sample_weight)
        rows = check_rows(x, y, sample_weight)
        size = batch_size or (math.ceil(rows / steps) if steps else DEFAULT_BATCH_SIZE)
        return EpochStream(ArrayBatches(x, y, sample_weight, size, shuffle, device), steps, goes_on)
    if isinstance(x, (str, bytes, Mapping, list, tuple, set)) or not (
        isinstance(x, (Iterable, Dataset)) or is_sequence(x)
    ):
        raise _no_data(x)
    unused = {"y": y, "sample_weight": sample_weight}
    if isinstance(x, Dataset):
        _check_unused(x, unused)
        size = batch_size or DEFAULT_BATCH_SIZE
        if type(x) is TensorDataset:
            return EpochStream(_tensor_batches(x, size, shuffle, class_weight, device), steps, goes_on)
        x = dataset_loader(x, size, shuffle)
    else:
        _check_unused(x, {**unused, "batch_size": batch_size})
        if is_sequence(x):
            x = SequenceReader(x, bool(shuffle))
            if x.endless and steps is None:
                raise ValueError("There is no end to these batches (num_batches is None): say how many are a pass.")
    return EpochStream(IterableBatches(x, device, class_weight), steps, goes_on)


def takes_batch_size(x: Any) -> bool:
    """Whether batches of this data are made here, rather than by itself."""
    return is_array_like(x) or isinstance(x, Dataset)


def _tensor_batches(
    dataset: TensorDataset,
    batch_size: int,
    shuffle: bool | str,
    class_weight: Mapping[int, float] | None,
    device: torch.device,
) -> ArrayBatches:
    """A TensorDataset's tensors, which need not be taken apart and put together again row by row."""
    x, y, sample_weight = unpack_x_y_sample_weight(dataset.tensors)
    if class_weight is not None:
        sample_weight = class_weights_to_sample_weights(y, class_weight, sample_weight)
    return ArrayBatches(x, y, sample_weight, batch_size, shuffle, device)


def _check_unused(x: Any, unused: Mapping[str, Any]) -> None:
    given = [name for name, value in unused.items() if value is not None]
    if given:
        raise ValueError(
            f"x is a {type(x).__name__}, which gives whole batches (x, y) or (x, y, sample_weight) itself, so "
            f"{', '.join(given)} cannot be given beside it."
        )


def _no_data(x: Any) -> ValueError:
    strange = [f"{name} is {type(leaf).__name__}" for name, leaf in named_leaves(x, "x") if not is_array_like(leaf)]
    return ValueError(
        f"Not data: {', '.join(strange) or 'x is empty'}. Give NumPy arrays, tensors, lists or dicts of them, pandas "
        "frames, a Dataset or DataLoader, a PyDataset, or an iterable of batches."
    )
