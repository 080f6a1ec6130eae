"""`EpochStream`: batches, epoch by epoch."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torchfunc.training.data.array_batches import ArrayBatches
from torchfunc.training.data.arrays import Data
from torchfunc.training.data.batches import Batches
from torchfunc.training.data.parts import data_of
from torchfunc.training.data.random_states import random_states, set_random_states

__all__ = ["EpochStream"]


class NoBatches(ValueError):
    """There are no batches for an epoch."""


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
        return data_of(first)

    def is_used_up(self) -> bool:
        """Whether nothing is left of batches that can be gone through only once."""
        if self.batches.restarts:
            return False
        try:
            self.peek()
        except NoBatches:
            return True
        return False

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
        raise NoBatches(
            "The data gave no batches. A generator can be gone through only once: with several epochs give "
            "`steps_per_epoch`, or something that can be started again, such as a DataLoader."
        )
