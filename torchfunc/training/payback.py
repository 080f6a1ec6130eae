"""Whether compiling a step will pay: the rule of `jit_compile="payback"`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

__all__ = ["Payback"]

D = TypeVar("D")
R = TypeVar("R")

_WARM_UP = 5
_SAMPLE = 20
# A graph of a few layers takes about 8 s to compile, and each further layer a quarter of a second.
_SECONDS, _SECONDS_A_LAYER = 8.0, 0.25
# Compiled steps save some 20 to 60 % of the time. At this multiple, saving 20 % is enough.
_MARGIN = 5.0


class Payback:
    """Measures eager steps, and says when the steps still to come take so long that compiling them pays.

    Args:
        layers: how many layers the model has, which is what the time to compile depends on.
        clock: gives seconds.
    """

    def __init__(self, layers: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.cost = _SECONDS + _SECONDS_A_LAYER * layers
        """An estimate of the seconds that compiling takes."""
        self._clock = clock
        self._remaining: int | None = None
        self._eager: list[float] = []
        self._compiled: list[float] = []
        self._rejected = False

    def expect(self, steps: int | None) -> None:
        """Tell how many steps are still to come; None if nobody knows, and then nothing is compiled."""
        self._remaining = steps

    def run(self, step: Callable[[D], R], compiled: Callable[[D], R], data: D) -> R:
        """Run a step in the form that is due."""
        due = self.due
        step, times = (compiled, self._compiled) if due else (step, self._eager)
        start = self._clock()
        result = step(data)
        if len(times) < _WARM_UP + _SAMPLE:
            times.append(self._clock() - start)
        if self._remaining is not None:
            self._remaining -= 1
        return result

    @property
    def due(self) -> bool:
        """Whether the next step is to be a compiled one."""
        if self._rejected or self._remaining is None or len(self._eager) < _WARM_UP + _SAMPLE:
            return False
        if len(self._compiled) == _WARM_UP + _SAMPLE:
            self._rejected = _typical(self._compiled) > _typical(self._eager)
            return not self._rejected
        return bool(self._compiled) or self._remaining * _typical(self._eager) >= _MARGIN * self.cost


def _typical(times: list[float]) -> float:
    return float(np.median(times[_WARM_UP:]))
