"""`Processes`: the processes of a job that train one model together, and what they tell each other.

Which batches there are, what the logs say and when training ends is settled on the hosts, through gloo. Only gradients,
and what losses and layers sum up, go through the group that the devices use.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import get_worker_info

from torchfunc.training.distributed.meshes import Mesh, Strategy, two_axes

__all__ = ["STRATEGIES", "Processes", "find_processes", "is_launched", "note_failure", "use_own_device"]

STRATEGIES = ("auto", "ddp", "fsdp", None)
"""What `compile(strategy=...)` takes, beside a mesh."""

# What torchrun, and whoever starts processes in its way, tells each of them.
_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_LEFT = "left"
_FAREWELL = 10.0


class Processes:
    """The processes of a job, of which this is one. What is written as one call here is made by all of them.

    Those that have a layer split between them ("model" in a mesh) get the same rows and the same random numbers. They
    are one to whoever shares out rows, counts and results.

    Args:
        mesh: the axes "data" and "model" of the processes; None for those that all have rows of their own.

    Attributes:
        number: of this process, from 0.
        rank: the number of its rows' part, from 0.
        size: how many parts there are.
        mesh: as given.
        rows_group: one process for each part, for what is summed over all rows on the devices; None for all processes.
    """

    def __init__(self, mesh: DeviceMesh | None = None) -> None:
        self.number = distributed.get_rank()
        self.group = distributed.group.WORLD
        on_hosts = distributed.get_backend() == "gloo"
        self._hosts = self.group if on_hosts else distributed.new_group(backend="gloo")
        self.mesh = mesh
        self.rows_group = None if mesh is None else mesh.get_group("data")
        places = torch.arange(distributed.get_world_size()).unsqueeze(1) if mesh is None else mesh.mesh
        self.rank, column = (places == self.number).nonzero()[0].tolist()
        self.size = len(places)
        self._parts: list[int] = places[:, column].tolist()
        self._firsts: list[int] = places[:, 0].tolist()
        self._same_part: Any = None
        if places.shape[1] > 1:
            groups = [None if on_hosts else distributed.new_group(row, backend="gloo") for row in places.tolist()]
            assert mesh is not None
            self._same_part = mesh.get_group("model") if on_hosts else groups[self.rank]

    def __deepcopy__(self, memo: Any) -> Processes:
        return self

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and shows how far things are."""
        return self.number == 0

    @functools.cached_property
    def writers(self) -> distributed.ProcessGroup:
        """The group in which files are written together, also by other threads. First asked for by all at one time."""
        return distributed.new_group(backend="gloo")

    def own_rows(self, rows: int) -> range:
        """Which of so many rows this process has: the first ones have one more if there is a rest."""
        least, rest = divmod(rows, self.size)
        start = self.rank * least + min(self.rank, rest)
        return range(start, start + least + (self.rank < rest))

    def gather_parts(self, value: Any) -> list[Any]:
        """What the processes of each part give: anything that can be pickled."""
        found = self.gather(value)
        return [found[number] for number in self._parts]

    def gather(self, value: Any) -> list[Any]:
        """What each of the processes gives: anything that can be pickled."""
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, value, self._hosts)
        return found

    def gather_counts(self, count: int) -> list[int]:
        """The number that the processes of each part give."""
        counts = self._counts(count)
        return [counts[number] for number in self._parts]

    def _counts(self, count: int) -> list[int]:
        counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64)
        counts[self.number] = count
        distributed.all_reduce(counts, group=self._hosts)
        return counts.tolist()

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return any(self._counts(int(flag)))

    def send(self, value: Any, source: int = 0) -> Any:
        """What the (first) process of this part gives."""
        found = [value]
        distributed.broadcast_object_list(found, self._firsts[source], self._hosts)
        return found[0]

    @property
    def share_rows(self) -> bool:
        """Whether several processes get the same rows."""
        return self._same_part is not None

    def first_of_part(self, value: Any) -> Any:
        """What the first of the processes that get the same rows gives."""
        found = [value]
        distributed.broadcast_object_list(found, self._firsts[self.rank], self._same_part)
        return found[0]

    def align_generators(self, device: torch.device) -> None:
        """Let the processes of a part draw the same random numbers from here on: those of the first of them.

        In each step, since much may draw numbers in one process alone: a callback, say.
        """
        if self._same_part is None:
            return
        states = [torch.get_rng_state()]
        if device.type == "cuda":
            states.append(torch.cuda.get_rng_state(device))
        for state in states:
            distributed.broadcast(state, self._firsts[self.rank], self._same_part)
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all parts, in place."""
        for same in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            distributed.all_reduce(flat, group=self.rows_group)
            _spread(flat, same)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give each tensor the values that it has in the first process, in place."""
        for same in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            distributed.broadcast(flat, 0)
            _spread(flat, same)

    def gather_rows(self, rows: Tensor, counts: list[int]) -> list[Tensor]:
        """The rows of all parts, which have so many of them; all other axes are equal."""
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(distributed.get_world_size())]
        distributed.all_gather(found, padded, self._hosts)
        return [found[number][:count] for number, count in zip(self._parts, counts, strict=True)]

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
        known: the processes that it has joined, by their mesh.
        failed: whether a run has failed here.
        left: whether the others know that it has come to its end.
    """

    known: ClassVar[dict[Mesh | None, Processes]] = {}
    failed = False
    left = False


def is_launched() -> bool:
    """Whether this is one of several processes that torchrun, or somebody in its way, has started."""
    return os.environ.keys() >= _LAUNCHED and int(os.environ["WORLD_SIZE"]) > 1 and get_worker_info() is None


def use_own_device(strategy: Strategy) -> None:
    """Make the GPU that belongs to this process, of those of its machine, the current one."""
    if strategy is not None and is_launched() and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def find_processes(strategy: str | Mesh | None, device: torch.device) -> Processes | None:
    """The processes that share the work of a run; None if there is but this one.

    If torch.distributed is not yet initialized in processes that were launched together, it is now.

    Args:
        strategy: what `compile` was given; under None each process works for itself.
        device: where the model is.

    Raises:
        ValueError: the axes of a mesh to make have other sizes.
    """
    if strategy is None or not distributed.is_available():
        return None
    if not distributed.is_initialized():
        if not is_launched():
            return None
        _start("nccl" if device.type == "cuda" else "gloo")
    if distributed.get_world_size() == 1:
        return None
    mesh = None if isinstance(strategy, str) else strategy
    known = _State.known.get(mesh)
    if known is None or known.group is not distributed.group.WORLD:
        known = _State.known[mesh] = Processes(None if mesh is None else two_axes(mesh, device.type))
    return known


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
