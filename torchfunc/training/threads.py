"""How many threads eager training steps take on the CPU: the rule of `config.set_num_threads("probe")`."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["ThreadProbe", "restored_threads"]

_WARM_UP = 5
# Turns of one thread and of all, and how many steps each takes: what else the machine does changes from turn to turn.
_TURNS, _STEPS = 6, 5


class ThreadProbe:
    """Times the first steps with all threads and with one, in turns, and stays with what was faster.

    A small model's step is many short operations, for each of which threads have to be woken up.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._choices = torch.get_num_threads(), 1
        self._times: dict[int, list[float]] = {threads: [] for threads in self._choices}
        self._done = 0

    def run(self, step: Callable[[Any], Any], data: Any) -> Any:
        """Run a step with the threads that are due."""
        measured = self._done - _WARM_UP
        self._done += 1
        if measured < 0 or measured > _TURNS * _STEPS:
            return step(data)
        turn, place = divmod(measured, _STEPS)
        if turn == _TURNS:
            torch.set_num_threads(min(self._choices, key=lambda threads: statistics.median(self._times[threads])))
            return step(data)
        threads = self._choices[turn % 2]
        if place == 0:
            torch.set_num_threads(threads)
        start = self._clock()
        result = step(data)
        self._times[threads].append(self._clock() - start)
        return result


@contextlib.contextmanager
def restored_threads() -> Iterator[None]:
    """Put the number of threads back, however the run ends."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
