"""A user's DataLoader for one of several processes: the batches that its sampler makes, taken in turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from torchfunc.training.distributed.processes import Processes

__all__ = ["sharded"]

_SETTINGS = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("generator", "prefetch_factor", "persistent_workers"),
)


def sharded(loader: DataLoader[Any], processes: Processes, keeps_order: bool) -> Iterable[Any]:
    """What a process reads of a DataLoader that all of them have.

    The loader's sampler says which rows a batch has, in the first process for all; the batches are taken in turns. One
    of an `IterableDataset`, or with a `DistributedSampler`, gives each process its own already, and is taken as it is.

    Args:
        loader: the loader.
        processes: those that share its batches.
        keeps_order: whether each row is needed once and in order, which a `DistributedSampler` does not see to.

    Raises:
        ValueError: the loader is of a class with batches of its own making, or its DistributedSampler is for another
            number of processes.
    """
    if isinstance(loader.dataset, IterableDataset):
        return loader
    if isinstance(loader.sampler, DistributedSampler):
        if loader.sampler.num_replicas != processes.size:
            raise ValueError(
                f"The DistributedSampler shares the rows out over {loader.sampler.num_replicas} processes, but there "
                f"are {processes.size} that get different ones: DistributedSampler(..., num_replicas={processes.size}, "
                "rank=...), of a mesh mesh.get_local_rank('data')."
            )
        if not keeps_order or loader.sampler.shuffle:
            return _OwnLoader(loader, loader.sampler)
        batches: Any = _in_order(loader)
    elif type(loader).__iter__ is not DataLoader.__iter__:
        raise ValueError(
            f"{type(loader).__name__} makes batches in a way of its own, which several processes cannot share. "
            "Give it a DistributedSampler, or give a plain DataLoader."
        )
    else:
        batches = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    if not isinstance(batches, Sized):
        raise ValueError(
            f"The sampler {type(batches).__name__} has no `__len__`, so several processes cannot take its batches in "
            "turns. Give a DistributedSampler, or one that says how many batches there are."
        )
    settings = {name: getattr(loader, name) for name in _SETTINGS}
    turns = _Turns(batches, processes)
    if loader.batch_sampler is None:
        return DataLoader(loader.dataset, batch_size=None, sampler=turns, **settings)
    return DataLoader(loader.dataset, batch_sampler=turns, **settings)


def _in_order(loader: DataLoader[Any]) -> Any:
    """All rows of a dataset, one after the other, in the batches that the loader would make."""
    rows = range(len(loader.dataset))  # type: ignore[arg-type]
    size = loader.batch_size
    return rows if size is None else [rows[start : start + size] for start in range(0, len(rows), size)]


class _Turns:
    """Every so many-th of the batches that a sampler makes in the first process."""

    def __init__(self, batches: Any, processes: Processes) -> None:
        self._batches, self._processes = batches, processes

    def __len__(self) -> int:
        return math.ceil(len(self._batches) / self._processes.size)

    def __iter__(self) -> Iterator[Any]:
        # The first process alone draws; a sampler may draw from any generator at any time.
        drawn = self._processes.send(list(self._batches) if self._processes.is_first else None)
        return iter(drawn[self._processes.rank :: self._processes.size])


class _OwnLoader:
    """A loader with a DistributedSampler, which is told of each epoch."""

    def __init__(self, loader: DataLoader[Any], sampler: DistributedSampler[Any]) -> None:
        self._loader, self._sampler = loader, sampler
        self._epochs = itertools.count()

    def __len__(self) -> int:
        return len(self._loader)

    def on_epoch_begin(self) -> None:
        """Let the sampler shuffle anew."""
        self._sampler.set_epoch(next(self._epochs))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)
