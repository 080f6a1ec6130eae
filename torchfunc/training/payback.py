"""Whether compiling a step will pay: the rule of `jit_compile="payback"`, and of "auto" on the CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from torchfunc.training.compiled_step import BatchFunction, CompiledStep

__all__ = ["Payback"]

_WARM_UP = 5
_SAMPLE = 20
# Seconds that the training waits for the compiler in any case: for its import, for tracing and loading.
_PAUSE, _PAUSE_A_LAYER = 4.0, 0.1
# Seconds of work that another process may do meanwhile.
_WORK, _WORK_A_LAYER = 15.0, 0.5
# Should compiled steps be no faster, a training has lost no more than this share of its time.
_RISK = 0.05


class Payback:
    """Measures eager steps, and says whether those still to come take so long that compiling them is no risk.

    Args:
        layers: how many layers the model has, which is what the time to compile depends on.
        clock: gives seconds.
        spare_core: whether another process may work without taking a core from the training; None looks.
    """

    def __init__(
        self, layers: int, clock: Callable[[], float] = time.perf_counter, spare_core: bool | None = None
    ) -> None:
        self._pause = _PAUSE + _PAUSE_A_LAYER * layers
        self._work = _WORK + _WORK_A_LAYER * layers
        self._clock = clock
        self._spare_core = _has_spare_core() if spare_core is None else spare_core
        self._remaining = 0
        self._eager: list[float] = []
        self._compiled: list[float] = []
        self._rejected = False
        self._due: bool | None = False

    def expect(self, steps: int | None) -> None:
        """Tell how many steps are still to come; None if nobody knows, and then nothing is compiled."""
        self._remaining = steps or 0
        if not self._due:
            # To measure takes some steps, too.
            self._due = None if not self._rejected and self._remaining > 2 * (_WARM_UP + _SAMPLE) else False

    @property
    def is_open(self) -> bool:
        """Whether steps are compiled, or may be."""
        return self._due is not False

    def run(self, step: BatchFunction, compiled: CompiledStep, data: Any) -> Any:
        """Run a step in the form that is due."""
        if self._due is False:
            return step(data)
        if self._due is None:
            result = self._timed(step, data, self._eager)
            self._remaining -= 1
            if _is_full(self._eager):
                self._due = self._is_long_enough(compiled)
            return result
        if _is_full(self._compiled):
            return compiled(data)
        measured: list[float] = []
        result = self._timed(compiled, data, measured)
        if not compiled.is_waiting:
            self._compiled += measured
            if _is_full(self._compiled) and _typical(self._compiled) > _typical(self._eager):
                self._due, self._rejected = False, True
        return result

    def _timed(self, step: BatchFunction, data: Any, times: list[float]) -> Any:
        start = self._clock()
        result = step(data)
        times.append(self._clock() - start)
        return result

    def _is_long_enough(self, compiled: CompiledStep) -> bool:
        cost = self._pause
        if not (compiled.is_prepared_beside and self._spare_core):
            cost += self._work
        return self._remaining * _typical(self._eager) * _RISK >= cost


def _is_full(times: list[float]) -> bool:
    return len(times) >= _WARM_UP + _SAMPLE


def _typical(times: list[float]) -> float:
    return float(np.median(times[_WARM_UP:]))


def _has_spare_core() -> bool:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.get_num_threads() < cores
