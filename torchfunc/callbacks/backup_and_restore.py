"""Training that survives the end of its process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.callbacks.frequency import SaveFrequency
from torchfunc.saving.backups import Backups
from torchfunc.saving.files import PathLike

__all__ = ["BackupAndRestore"]


class BackupAndRestore(Callback):
    """Save all of a `fit` now and then, and go on from there when the script is run again after an interruption.

    What is saved is everything that decides how training continues: weights and buffers, the optimizer's state, metrics
    in mid-epoch, the place in the data, the state of all random generators (Python's, NumPy's, torch's), the history,
    and what other callbacks have seen. On the CPU a run that was interrupted, wherever it was, ends with the same
    weights and history as one that was not, bit for bit, if the script is otherwise the same. The batches of the epoch
    that were done are drawn again and skipped.

    The files are safetensors with JSON inside, replaced atomically: one that is cut off while it is written leaves the
    one before. When `fit` ends they are deleted. Weights that are sharded over several processes go, with their state,
    into a folder of torch.distributed.checkpoint instead, to which each writes its own. What some processes saved,
    others can resume, more or fewer or one, sharded or not.

    Args:
        backup_dir: the folder for the files, made if need be; one for each `fit` that may be interrupted.
        save_freq: "epoch" to save at the end of each epoch, a number to save after so many batches, or False to
            save nothing and only restore.
        double_checkpoint: whether to keep the save before the last too, and restore it, with a warning, if the last is
            damaged.
        delete_checkpoint: whether to delete the files when `fit` ends.
        save_on_background: whether training goes on while the files are written, by another thread, from a copy on the
            host. The next save waits for the last one. If that could not be written, its error is raised there.

    Raises:
        ValueError: no folder is given, or `save_freq` is none of these; or, in `fit`, the files belong to another model
            or other data, or are damaged.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> backup = callbacks.BackupAndRestore("backup")  # run again after an interruption, the script goes on from there
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=2, verbose=0, callbacks=[backup])
    >>> history.epoch
    [0, 1]
    """

    defers_logs = True
    # So that a save at the end of an epoch holds what the others did there.
    runs_last = True
    all_processes = True

    def __init__(
        self,
        backup_dir: PathLike,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        save_on_background: bool = False,
    ) -> None:
        super().__init__()
        if not backup_dir:
            raise ValueError("BackupAndRestore needs a folder: `backup_dir` is empty.")
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._frequency = SaveFrequency(save_freq)
        self.save_on_background = save_on_background
        self._backups = Backups(self.backup_dir, double_checkpoint, save_on_background)
        if not self._frequency.counts_batches:
            self.idle_hooks = (BackupAndRestore.on_train_batch_end,)
        self._run: Any = None
        self._epoch = 0

    def set_run(self, run: Any) -> None:
        """Note the run to save and to restore."""
        self._run = run

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Go on from the last save, if there is one."""
        failures: list[ValueError] = []
        processes, shards = self._run.processes, self._run.shards()
        for path in self._backups.paths(processes):
            try:
                self._run.resume(self._backups.read(path, shards, processes))
            except ValueError as error:
                failures.append(error)
                continue
            if failures:
                warnings.warn(f"{failures[0]} Training goes on from the save before it, {path}.", stacklevel=2)
            return
        if failures:
            raise ValueError(f"{failures[0]} Delete the folder {self.backup_dir!r} to begin anew.") from failures[0]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save, if it is time. An epoch that is being stopped is not resumed."""
        if self._frequency.is_due(batch) and not self.model.stop_training:
            self._save(self._epoch, batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save, if it is time."""
        if self.save_freq == "epoch":
            self._save(epoch + 1, 0, logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Delete the files, and the folder if nothing else is in it."""
        self._backups.wait()
        if self.delete_checkpoint and self.is_first_process:
            self._backups.delete()

    def after_run(self) -> None:
        """Wait for what is being written."""
        self._backups.settle()

    def state_dict(self) -> dict[str, Any]:
        """How many batches there were since the last save."""
        return {"frequency": self._frequency.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count on from there."""
        self._frequency.set_state(state["frequency"])

    def _save(self, epoch: int, batches: int, logs: Mapping[str, Any] | None) -> None:
        # To which all processes contribute.
        self._backups.write(self._run.state(epoch, batches, logs), self._run.processes)
