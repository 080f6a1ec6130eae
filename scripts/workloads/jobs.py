"""What a worker is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Job", "Turn", "seconds"]

# A turn does the work once and returns what one unit of it took, in seconds.
Turn = Callable[[], float]


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        work: "fit" or "fit a table" (a unit is a step), "predict" or "evaluate" (all rows), "forward" or one of
            `SMALL_CALLS` (a call), "build" (a model).
        model: which model of `drawn` and `modules`, or which of `TABLES`.
        amount: how often a turn does it: steps, rows, calls; the depth of a chain to build.
        device: "cpu" or "cuda".
    """

    work: str
    model: str
    amount: int
    device: str


def seconds(function: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
