"""Memory that a step has freed is kept for the next step, in place of being given back to the system after each.

glibc returns the top of its heap to the system when more than 64 MiB of it (at most) are free. A training step frees
all its activations, so each step would ask for the same memory again, page by page, which takes up to a third of the
time of convolutional and recurrent models on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterator

import torch

__all__ = ["kept_heap"]

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1
_MIB = 2**20
# Larger blocks than that are mapped one by one; glibc takes no more than the second where it takes the first for wrong.
_LARGE, _LARGEST_OF_OLD = 1024 * _MIB, 32 * _MIB

_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def kept_heap(device: torch.device) -> Iterator[None]:
    """Let the process keep what it frees while a model runs on the CPU; afterwards, the most that glibc itself keeps.

    Does nothing without glibc, or if the environment says how much is to be kept (`MALLOC_TRIM_THRESHOLD_`,
    `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    _count(libc, 1)
    try:
        yield
    finally:
        _count(libc, -1)


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
