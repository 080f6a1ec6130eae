"""`Backups`: the saves of a training, the last one and perhaps the one before it; written here or by a thread."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from torchfunc.saving.checkpoint_folders import Sharers, read_checkpoint, write_checkpoint
from torchfunc.saving.files import PathLike, remove
from torchfunc.saving.states import read_state, split_state, write_split_state
from torchfunc.shards import is_shard

__all__ = ["Backups"]

_FILES = "latest.safetensors", "previous.safetensors"
_FOLDERS = "latest.dcp", "previous.dcp"


class Backups:
    """The saves of a training in a folder.

    A save is a safetensors file, which the first process writes; or, if the weights are sharded over several processes,
    a folder of torch.distributed.checkpoint, to which all write. Either replaces the other atomically.

    Args:
        folder: where they are, made if need be.
        keeps_previous: whether the save before the last one is kept.
        in_background: whether another thread writes, from a copy on the host.
    """

    # What is being written in this process; one at a time, since all processes write in one order.
    _pending: ClassVar[Future[None] | None] = None

    def __init__(self, folder: PathLike, keeps_previous: bool, in_background: bool) -> None:
        self._folder = Path(folder)
        self._keeps_previous = keeps_previous
        self._in_background = in_background

    def paths(self, processes: Sharers | None) -> list[Path]:
        """The saves that are there, the last one first; as the first process sees it."""
        self.wait()
        found = [path for name in (*_FILES, *_FOLDERS) if (path := self._folder / name).exists()]
        found.sort(key=lambda path: -path.stat().st_mtime_ns)
        shared: list[Path] = found if processes is None else processes.send(found)
        return shared

    def read(self, path: Path, shards: Mapping[str, Tensor], processes: Sharers | None) -> Any:
        """The state in one of them, as `read_checkpoint` does it.

        Raises:
            ValueError: it is damaged.
        """
        return read_checkpoint(path, shards, processes) if path.name in _FOLDERS else read_state(path)

    def write(self, state: Any, processes: Sharers | None) -> None:
        """Save a state, to which all processes contribute; all call this.

        Raises:
            OSError: it, or the one before, cannot be written.
        """
        self.wait()
        plan, tensors = split_state(state)
        is_first = processes is None or processes.is_first
        sharded = any(map(is_shard, tensors.values()))
        if not (is_first or sharded):
            return
        if self._in_background:
            tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            if sharded and processes is not None:
                # In this thread, as long as it is not there.
                _ = processes.writers

        def work() -> None:
            if sharded:
                assert processes is not None
                latest, previous = (self._folder / name for name in _FOLDERS)
                write_checkpoint(latest, previous, plan, tensors, processes)
                if is_first and not self._keeps_previous:
                    self._delete(_FOLDERS[1:])
            else:
                self._write_file(plan, tensors)
            if is_first:
                self._delete(_FILES if sharded else _FOLDERS)

        if self._in_background:
            Backups._pending = _started(work)
        else:
            work()

    def _write_file(self, plan: str, tensors: Mapping[str, Tensor]) -> None:
        latest, previous = (self._folder / name for name in _FILES)
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._keeps_previous and latest.exists():
            os.replace(latest, previous)
        write_split_state(latest, plan, tensors)

    @staticmethod
    def wait() -> None:
        """Wait until all is written that is being written.

        Raises:
            OSError: it cannot be written.
        """
        pending, Backups._pending = Backups._pending, None
        if pending is not None:
            pending.result()

    def settle(self) -> None:
        """The same after an error, of which another one would tell nothing."""
        try:
            self.wait()
        except (OSError, RuntimeError) as error:
            warnings.warn(f"The last save of the training was not written: {error}", stacklevel=2)

    def delete(self) -> None:
        """Delete them, and the folder if nothing else is in it."""
        self._delete((*_FILES, *_FOLDERS))
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            remove(self._folder / name)


def _started(work: Callable[[], None]) -> Future[None]:
    """Work that another thread does."""
    pool = ThreadPoolExecutor(1)
    started = pool.submit(work)
    pool.shutdown(wait=False)
    return started
