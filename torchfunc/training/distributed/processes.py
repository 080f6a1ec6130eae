"""`Processes`: the processes of a job that train one model together, and what they tell each other.

Which batches there are, what the logs say and when training ends is settled on the hosts, through gloo. Only gradients,
and what losses and layers sum up, go through the group that the devices use.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import get_worker_info

__all__ = ["STRATEGIES", "Processes", "find_processes", "is_launched", "note_failure", "use_own_device"]

STRATEGIES = ("auto", "ddp", "fsdp", None)
"""What `compile(strategy=...)` takes."""

# What torchrun, and whoever starts processes in its way, tells each of them.
_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_LEFT = "left"
_FAREWELL = 10.0


class Processes:
    """The processes of a job, of which this is one. What is written as one call here is made by all of them.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self.group = distributed.group.WORLD
        on_hosts = distributed.get_backend() == "gloo"
        self._hosts = self.group if on_hosts else distributed.new_group(backend="gloo")

    def __deepcopy__(self, memo: Any) -> Processes:
        return self

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and shows how far things are."""
        return self.rank == 0

    def own_rows(self, rows: int) -> range:
        """Which of so many rows this process has: the first ones have one more if there is a rest."""
        least, rest = divmod(rows, self.size)
        start = self.rank * least + min(self.rank, rest)
        return range(start, start + least + (self.rank < rest))

    def gather(self, value: Any) -> list[Any]:
        """What each of the processes gives: anything that can be pickled."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, self._hosts)
        return found

    def gather_counts(self, count: int) -> list[int]:
        """The number that each of the processes gives."""
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = count
        distributed.all_reduce(counts, group=self._hosts)
        return counts.tolist()

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return any(self.gather_counts(int(flag)))

    def send(self, value: Any, source: int = 0) -> Any:
        """What the process of this number gives."""
        found = [value]
        distributed.broadcast_object_list(found, source, self._hosts)
        return found[0]

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all processes, in place."""
        for same in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            distributed.all_reduce(flat)
            _spread(flat, same)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give each tensor the values that it has in the first process, in place."""
        for same in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            distributed.broadcast(flat, 0)
            _spread(flat, same)

    def gather_rows(self, rows: Tensor, counts: list[int]) -> list[Tensor]:
        """The rows of all processes, which have so many of them; all other axes are equal."""
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(found, padded, self._hosts)
        return [each[:count] for each, count in zip(found, counts, strict=True)]

    @contextlib.contextmanager
    def first_generator(self) -> Iterator[None]:
        """Let torch's global generator on the CPU be that of the first process, so that all draw the same numbers."""
        state = torch.get_rng_state()
        shared = state.clone()
        distributed.broadcast(shared, 0, self._hosts)
        if self.is_first:
            yield
            return
        torch.set_rng_state(shared)
        try:
            yield
        finally:
            torch.set_rng_state(state)


def _alike(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors of one dtype and device each."""
    found: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(found.values())


def _spread(flat: Tensor, tensors: list[Tensor]) -> None:
    with torch.no_grad():
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))


class _State:
    """What this process knows of its job.

    Attributes:
        known: the processes that it has joined.
        failed: whether a run has failed here.
        left: whether the others know that it has come to its end.
    """

    known: Processes | None = None
    failed = False
    left = False


def is_launched() -> bool:
    """Whether this is one of several processes that torchrun, or somebody in its way, has started."""
    return os.environ.keys() >= _LAUNCHED and int(os.environ["WORLD_SIZE"]) > 1 and get_worker_info() is None


def use_own_device(strategy: str | None) -> None:
    """Make the GPU that belongs to this process, of those of its machine, the current one."""
    if strategy is not None and is_launched() and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def find_processes(strategy: str | None, device: torch.device) -> Processes | None:
    """The processes that share the work of a run; None if there is but this one.

    If torch.distributed is not yet initialized in processes that were launched together, it is now.

    Args:
        strategy: what `compile` was given; under None each process works for itself.
        device: where the model is.
    """
    if strategy is None or not distributed.is_available():
        return None
    if not distributed.is_initialized():
        if not is_launched():
            return None
        _start("nccl" if device.type == "cuda" else "gloo")
    if distributed.get_world_size() == 1:
        return None
    if _State.known is None or _State.known.group is not distributed.group.WORLD:
        _State.known = Processes()
    return _State.known


def note_failure() -> None:
    """Note that a run has failed here, so that this process leaves without waiting for others."""
    _State.failed = True


def _start(backend: str) -> None:
    """Initialize torch.distributed in processes that were launched together."""
    store, rank, size = next(rendezvous("env://"))
    # Processes that torchrun has started again must not meet those that were killed, which its store still knows.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"torchfunc/{attempt}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    atexit.register(_leave, store, size)


def _leave(store: Any, size: int) -> None:
    """Leave the group that was initialized here, but not before the others have come to their end, too."""
    if not distributed.is_initialized():
        return
    # (An error of the script's own, beyond all runs, is in `last_value`.)
    if not (_State.failed or hasattr(sys, "last_value")):
        deadline = time.monotonic() + _FAREWELL
        # Whoever keeps the store may have left already.
        with contextlib.suppress(RuntimeError):
            while store.add(_LEFT, 0 if _State.left else 1) < size and time.monotonic() < deadline:
                _State.left = True
                time.sleep(0.01)
    distributed.destroy_process_group()
