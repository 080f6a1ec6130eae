"""States of sharded training in folders of `torch.distributed.checkpoint`, to which each process writes its shards.

As many processes as wrote it, or others, or one, can read it.

state.json          what lies where, as in states.py
.metadata, *.distcp  torch's: its index of the tensors, and the tensors
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed

from torchfunc.saving.files import replace_folder, replacing
from torchfunc.saving.states import join_state
from torchfunc.shards import is_shard

__all__ = ["Sharers", "read_checkpoint", "write_checkpoint"]

_PLAN = "state.json"


class Sharers(Protocol):
    """The processes that have a shard each."""

    @property
    def is_first(self) -> bool:
        """Whether this is the first of them."""

    @property
    def writers(self) -> distributed.ProcessGroup:
        """The group in which files are written."""

    def send(self, value: Any, source: int = 0) -> Any:
        """What one of them gives to all."""


def write_checkpoint(path: Path, previous: Path, plan: str, tensors: Mapping[str, Tensor], processes: Sharers) -> None:
    """Write a state that `split_state` has split, with shards of tensors, atomically: all processes call this.

    Args:
        path: the folder.
        previous: where the folder goes that was there before.
        plan, tensors: the state. Tensors that are whole are those of the first process.
        processes: all that call this.

    Raises:
        OSError: the folder cannot be written by one of them; then the one before is still there.
    """
    # (Not needed otherwise.)
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    own = {name: tensor for name, tensor in tensors.items() if processes.is_first or is_shard(tensor)}
    new = path.with_name(f".{path.name}.tmp")
    failed: list[OSError | None] = [None]
    if processes.is_first:
        # What processes that were killed have left.
        shutil.rmtree(new, ignore_errors=True)
    # Before others make it anew.
    distributed.barrier(processes.writers)
    with _explained(lambda rank, error: OSError(f"{path} cannot be written: process {rank}: {error!r}")):
        save(own, storage_writer=FileSystemWriter(new), process_group=processes.writers)
    if processes.is_first:
        try:
            with replacing(new / _PLAN) as file:
                file.write(plan.encode())
            replace_folder(new, path, previous)
        except OSError as error:
            failed = [error]
    distributed.broadcast_object_list(failed, 0, processes.writers)
    if failed[0] is not None:
        raise failed[0]


def read_checkpoint(path: Path, shards: Mapping[str, Tensor], processes: Sharers | None) -> Any:
    """The state in a folder: whole tensors on the CPU, and shards for tensors that are sharded here. All call this.

    The folder holds pickles, as torch writes them, which may run code: read what you trust.

    Args:
        path: the folder.
        shards: what is sharded here, by the names of `split_state`. The name of a weight's place in an optimizer's
            state stands for all tensors there of the weight's shape.
        processes: those that call this; None for one.

    Raises:
        ValueError: something in it is damaged or missing.
    """
    # (Not needed otherwise.)
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    found = _description(path) if processes is None or processes.is_first else None
    if processes is not None:
        found = processes.send(found)
    if isinstance(found, ValueError):
        raise found
    assert found is not None
    plan, places = found
    tensors = {}
    for name, (shape, dtype) in places.items():
        like = shards.get(name, shards.get(name.rpartition(".")[0]))
        if like is not None and like.shape == shape:
            tensors[name] = torch.empty_like(like, dtype=dtype)
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
    with (
        _explained(lambda rank, error: ValueError(f"{path} is damaged: process {rank}: {error!r}.")),
        warnings.catch_warnings(),
    ):
        # One process is what is meant.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(
            tensors,
            storage_reader=FileSystemReader(path),
            process_group=None if processes is None else processes.writers,
            no_dist=processes is None,
        )
    try:
        return join_state(plan, tensors)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _description(path: Path) -> tuple[str, dict[str, tuple[torch.Size, torch.dtype]]] | ValueError:
    """What lies where, and shape and dtype of each tensor; or what is wrong with the folder."""
    # (Not needed otherwise.)
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    try:
        plan = (path / _PLAN).read_text(encoding="utf-8")
        known: dict[str, Any] = dict(FileSystemReader(path).read_metadata().state_dict_metadata)
        return plan, {name: (place.size, place.properties.dtype) for name, place in known.items()}
    except (OSError, ValueError, AttributeError, ImportError, EOFError, TypeError, pickle.UnpicklingError) as error:
        return ValueError(f"{path} is damaged, or was written by a torch that this one does not understand: {error!r}.")


@contextlib.contextmanager
def _explained(explain: Callable[[int, BaseException], Exception]) -> Iterator[None]:
    """Let what torch says of the processes that have failed be an Exception."""
    from torch.distributed.checkpoint.api import CheckpointException  # not needed otherwise

    try:
        yield
    except CheckpointException as failed:
        rank, (error, _) = next(iter(failed.failures.items()))
        raise explain(rank, error) from error
