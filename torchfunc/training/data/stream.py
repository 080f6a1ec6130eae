"""`EpochStream`: data batch by batch and epoch by epoch, from arrays or from an iterable such as a DataLoader."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils.data import Dataset, TensorDataset

from torchfunc.structures import named_leaves
from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.arrays import Arrays, ClassWeight, Data, is_array_like, unpack_x_y_sample_weight
from torchfunc.training.data.batches import Batches
from torchfunc.training.data.frames import columns_or_frame
from torchfunc.training.data.iterable_batches import IterableBatches, SequenceReader, dataset_loader, is_sequence
from torchfunc.training.data.random_states import random_states, set_random_states

__all__ = ["EpochStream", "Source", "make_batches", "parse_arrays", "parse_data", "takes_batch_size"]

Source: TypeAlias = Any
"""What gives batches itself, or is made to: a Dataset, a DataLoader, a PyDataset, any iterable of batches."""

DEFAULT_BATCH_SIZE = 32


def parse_data(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    input_names: list[str] | None = None,
    output_names: list[str] | None = None,
) -> Arrays | Source:
    """Whatever `fit`, `evaluate` and `predict` take, parsed once.

    Args:
        x: arrays, tensors, or lists, tuples and dicts of them; or a `Dataset`, a `DataLoader` or any iterable of
            batches, which bring their own targets and weights.
        y, sample_weight: arrays like x; None beside an iterable.
        input_names, output_names: what a model's several inputs and outputs are called; frames are taken apart by them.

    Returns:
        `Arrays`, or x itself if it gives batches.

    Raises:
        ValueError: numbers of rows differ, an argument does not go with this kind of data, or x is no data.
    """
    if x is None:
        raise ValueError("There is no data: x is None.")
    if is_array_like(x):
        return parse_arrays(x, y, sample_weight, input_names, output_names)
    containers = (str, bytes, Mapping, list, tuple, set)
    if isinstance(x, containers) or not (isinstance(x, (Iterable, Dataset)) or is_sequence(x)):
        strange = [f"{name} is {type(leaf).__name__}" for name, leaf in named_leaves(x, "x") if not is_array_like(leaf)]
        raise ValueError(
            f"Not data: {', '.join(strange) or 'x is empty'}. Give NumPy arrays, tensors, lists or dicts of them, "
            "pandas frames, a Dataset or DataLoader, a PyDataset, or an iterable of batches."
        )
    _check_unused(x, y=y, sample_weight=sample_weight)
    return x


def parse_arrays(
    x: Any, y: Any, sample_weight: Any, input_names: list[str] | None, output_names: list[str] | None
) -> Arrays:
    """Arrays only; arguments as for `parse_data`."""
    columns = columns_or_frame(x, "x", input_names), columns_or_frame(y, "y", output_names)
    return Arrays.parse(*columns, sample_weight)


def takes_batch_size(data: Arrays | Source) -> bool:
    """Whether batches of this data are made here, rather than by itself."""
    return isinstance(data, (Arrays, Dataset))


def _check_unused(x: Source, **arguments: Any) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(
            f"x is a {type(x).__name__}, which gives whole batches (x, y) or (x, y, sample_weight) itself, so "
            f"{', '.join(given)} cannot be given beside it."
        )


@dataclass
class EpochStream:
    """Batches, epoch by epoch.

    Attributes:
        batches: where they come from.
        steps: batches an epoch; None takes all there are.
        continues: whether, with a number of steps, an epoch begins where the last one ended (training), or anew.
    """

    batches: Batches
    steps: int | None = None
    continues: bool = False

    def __post_init__(self) -> None:
        self._iterator: Iterator[Data] | None = None
        self._has_begun = False
        # Of the pass over `batches` that the last epoch belongs to: the random states when it began (recorded for
        # training only), the batches yielded before that epoch, and those of the epoch that are skipped on resuming.
        self._pass_states: dict[str, Any] | None = None
        self._drawn = 0
        self._done = 0

    @property
    def num_batches(self) -> int | None:
        """Batches an epoch, None if that is not known."""
        return self.steps or self.batches.num_batches

    def defer_gathering(self) -> None:
        """Yield `DeferredBatch`es, which are gathered within a step, if the data are arrays and no epoch has begun."""
        if isinstance(self.batches, ArrayBatches) and self._iterator is None:
            self.batches.deferred = True

    def peek(self) -> Data:
        """The batch that the next epoch will begin with.

        Raises:
            ValueError: there are none.
        """
        begun, rest = self._start()
        first = begun[0]
        self._iterator = itertools.chain(begun, rest)
        return first

    def epoch(self) -> Iterator[Data]:
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
            yield begun.pop()  # not referred to here any longer, so that its memory can be reused
        for batch in itertools.islice(rest, None if self.steps is None else self.steps - count):
            count += 1
            yield batch
        if count == self.steps:
            self._iterator = rest if self.continues else None
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
        """Where the data stand after `done` batches of an epoch, or between two, for `resume` in another process.

        None means that the next epoch begins a new pass over them.
        """
        if not done and self._iterator is None:
            return None
        return {"generators": self._pass_states, "drawn": self._drawn + done}

    def resume(self, place: dict[str, Any], done: int = 0) -> Data:
        """Go to a recorded place by drawing the batches before it. Returns the first of these.

        Raises:
            ValueError: there are fewer batches.
        """
        self._begin()
        set_random_states(place["generators"])
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

    def _start(self) -> tuple[list[Data], Iterator[Data]]:
        """The next batch, in a list, from where the last epoch ended if there is more, and what comes after it."""
        self._begin()
        begun, self._iterator = self._iterator, None
        for first in begun or ():
            assert begun is not None
            return [first], begun
        if self.continues:
            self._pass_states = random_states()
        self._drawn = 0
        iterator = iter(self.batches)
        for first in iterator:
            return [first], iterator
        raise ValueError(
            "The data gave no batches. A generator can be gone through only once: with several epochs give "
            "`steps_per_epoch`, or something that can be started again, such as a DataLoader."
        )


def make_batches(
    data: Arrays | Source,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    class_weight: ClassWeight | None = None,
    *,
    continues: bool = False,
    device: torch.device,
) -> EpochStream:
    """Batches of data that `parse_data` returned.

    Args:
        data: arrays, or what gives batches.
        batch_size: rows a batch for arrays and datasets, 32 by default (or what `steps` makes it).
        steps: batches an epoch, all by default.
        shuffle: whether arrays and map-style datasets are taken in a new order each epoch.
        class_weight: weights by class index.
        continues: whether, with `steps`, an epoch begins where the last one ended.
        device: where batches are needed.

    Raises:
        ValueError: an argument does not go with this kind of data.
    """
    if shuffle not in (True, False, "batch"):
        raise ValueError(f"`shuffle` is True, False or 'batch', got {shuffle!r}.")
    if isinstance(data, Arrays):
        size = batch_size or (math.ceil(data.rows / steps) if steps else DEFAULT_BATCH_SIZE)
        return EpochStream(ArrayBatches(data.weighted(class_weight), size, shuffle, device), steps, continues)
    if type(data) is TensorDataset:
        # Its tensors need not be taken apart and put together again row by row.
        arrays = Arrays.parse(*unpack_x_y_sample_weight(data.tensors)).weighted(class_weight)
        batches = ArrayBatches(arrays, batch_size or DEFAULT_BATCH_SIZE, shuffle, device)
        return EpochStream(batches, steps, continues)
    if isinstance(data, Dataset):
        data = dataset_loader(data, batch_size or DEFAULT_BATCH_SIZE, shuffle)
    else:
        _check_unused(data, batch_size=batch_size)
        if is_sequence(data):
            data = SequenceReader(data, bool(shuffle))
            if data.endless and steps is None:
                raise ValueError("There is no end to these batches (num_batches is None): say how many are a pass.")
    return EpochStream(IterableBatches(data, device, class_weight), steps, continues)
