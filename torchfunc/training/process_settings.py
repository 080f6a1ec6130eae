"""Settings of the whole process that training changes for a run: memory allocation, denormals, threads."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

__all__ = ["ThreadProbe", "retained_memory", "training_process"]

D = TypeVar("D")
R = TypeVar("R")

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1
_MIB = 2**20
_SMALLEST = 5e-324
# Larger blocks than that are mapped one by one; glibc takes no more than the second where it takes the first for wrong.
_LARGE, _LARGEST_OF_OLD = 1024 * _MIB, 32 * _MIB

_lock = threading.Lock()
_users = 0


class retained_memory:
    """Let the process keep memory that it frees while a model runs on the CPU; afterwards, the most that glibc keeps.

    glibc returns the top of its heap to the system when more than 64 MiB of it (at most) are free. A training step
    frees all its activations, so each step would ask for the same memory again, page by page, which takes up to a third
    of the time of convolutional and recurrent models on the CPU.

    Does nothing without glibc, or if the environment sets the limits (`MALLOC_TRIM_THRESHOLD_`,
    `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._libc = _glibc() if self._on_cpu else None

    def __enter__(self) -> None:
        if self._libc is not None:
            _count(self._libc, 1)

    def __exit__(self, *error: object) -> None:
        if self._libc is not None:
            _count(self._libc, -1)


def _count(libc: ctypes.CDLL, change: int) -> None:
    """Note that one run more or less wants it, in any thread, and set it when the first begins and the last ends."""
    global _users
    with _lock:
        was, _users = _users, _users + change
        if not was:
            libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
            if not libc.mallopt(_M_MMAP_THRESHOLD, _LARGE):
                libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_OF_OLD)
        elif not _users:
            # There is no way to ask what was set. These are the limits up to which glibc adapts the two by itself;
            # the next large block that is freed gives the rest back.
            libc.mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
            libc.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or "CS_GNU_LIBC_VERSION" not in os.confstr_names or _is_set_by_user():
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") else None


def _is_set_by_user() -> bool:
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return any(name in os.environ for name in names) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")


class training_process(retained_memory):
    """The settings of the process for a training; afterwards those from before.

    On the CPU memory is retained, and numbers below 1e-38, which take many times longer than others there, are treated
    as 0 (XLA does so too). The number of threads may be changed in the block.
    """

    def __enter__(self) -> None:
        super().__enter__()
        self._threads = torch.get_num_threads()
        self._flushes = self._on_cpu and not _flushes_denormals()
        if self._flushes:
            torch.set_flush_denormal(True)

    def __exit__(self, *error: object) -> None:
        if self._flushes:
            torch.set_flush_denormal(False)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        super().__exit__()


def _flushes_denormals() -> bool:
    """torch has no getter, so see what becomes of the smallest number: Python's floats are computed as torch's are."""
    return _SMALLEST * 1.0 == 0.0


_WARM_UP = 5
# Turns of one thread and of all, and how many steps each takes: what else the machine does changes from turn to turn.
_TURNS, _STEPS = 6, 5


class ThreadProbe:
    """Times the first steps with all threads and with one, in turns, and continues with what was faster.

    It is the rule of `config.set_num_threads("probe")`, for eager training steps on the CPU.

    A small model's step is many short operations, for each of which threads have to be woken up.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._choices = torch.get_num_threads(), 1
        self._times: dict[int, list[float]] = {threads: [] for threads in self._choices}
        self._done = 0

    def run(self, step: Callable[[D], R], data: D) -> R:
        """Run a step with the number of threads whose turn it is."""
        measured = self._done - _WARM_UP
        self._done += 1
        if measured < 0 or measured > _TURNS * _STEPS:
            return step(data)
        turn, place = divmod(measured, _STEPS)
        if turn == _TURNS:
            torch.set_num_threads(min(self._choices, key=lambda threads: float(np.median(self._times[threads]))))
            return step(data)
        threads = self._choices[turn % 2]
        if place == 0:
            torch.set_num_threads(threads)
        start = self._clock()
        result = step(data)
        self._times[threads].append(self._clock() - start)
        return result
