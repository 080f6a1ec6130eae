"""Saving the model while it is trained."""

from __future__ import annotations

import os
import string
import warnings
from collections import ChainMap
from pathlib import Path
from typing import Any

import numpy as np

from torchfunc.callbacks.base import Logs
from torchfunc.callbacks.frequency import SaveFrequency
from torchfunc.callbacks.monitor import MonitorCallback
from torchfunc.saving.files import PathLike
from torchfunc.saving.model_config import config_of_model
from torchfunc.saving.model_files import check_model_path
from torchfunc.saving.sharded import is_sharded
from torchfunc.saving.weights import check_weights_path

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(MonitorCallback):
    """Save the model, or its weights, every epoch or every so many batches; all of them or only the best.

    Args:
        filepath: the file. It may hold `{epoch}`, `{batch}` and the names in the logs with a format, as in
            "{epoch:02d}-{val_loss:.2f}.safetensors"; epochs and batches count from 1. Folders are made.
        monitor: the number in the logs that tells which model is the best.
        verbose: whether to say what is saved (0 or 1).
        save_best_only: whether to save only when the number is better than ever before.
        save_weights_only: whether to save the weights only (`save_weights`) and not the whole model (`save`).
        mode: "min", "max" or "auto"; whether less or more is better.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: the value that the first model must beat, with `save_best_only`.

    Raises:
        ValueError: the name of the file does not end in what is saved, `save_freq` or `mode` is unknown; or, in `fit`,
            the name asks for something that the logs do not hold, or the model has a part that cannot be saved.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> keep = callbacks.ModelCheckpoint("best.keras", monitor="loss", save_best_only=True)
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), verbose=0, callbacks=[keep])
    >>> models.load_model("best.keras").predict(np.zeros((2, 1)), verbose=0).shape
    (2, 1)
    """

    defers_logs = True

    def __init__(
        self,
        filepath: PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.verbose = verbose
        self.filepath = os.fspath(filepath)
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self._frequency = SaveFrequency(save_freq)
        self._epoch = 0
        if not self._frequency.counts_batches:
            self.idle_hooks = (ModelCheckpoint.on_train_batch_end,)
        if save_weights_only:
            check_weights_path(self.filepath)
        else:
            check_model_path(self.filepath)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Raise ValueError, before anything is trained, if the model has a part that cannot be saved."""
        if not self.save_weights_only:
            config_of_model(self.model)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save, if it is time."""
        if self._frequency.is_due(batch):
            self._save(self._epoch, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save, if it is time."""
        if self.save_freq == "epoch":
            self._save(epoch, None, logs)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and how many batches there were since the last save."""
        return {"best": self.best, "frequency": self._frequency.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best = state["best"]
        self._frequency.set_state(state["frequency"])

    def _save(self, epoch: int, batch: int | None, logs: Logs | None) -> None:
        logs = {} if logs is None else logs
        path = self._path(epoch, batch, logs)
        if not self._should_save(epoch, logs, path):
            return
        if os.path.isdir(path):
            raise IsADirectoryError(
                f"Please specify a non-directory filepath for ModelCheckpoint. Filepath used is an existing directory: "
                f"{path}"
            )
        if not (self.is_first_process or is_sharded(self.model)):
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        self._say(epoch, f"finished saving model to {path}")

    def _should_save(self, epoch: int, logs: Logs, path: str) -> bool:
        if not self.save_best_only:
            self._say(epoch, f"saving model to {path}")
            return True
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(f"Can save best model only with {self.monitor} available.", stacklevel=2)
            return True
        if np.ndim(current) > 0:
            warnings.warn(
                f"Can save best model only when `monitor` is a scalar value. Received: {current}. "
                "Falling back to `save_best_only=False`.",
                stacklevel=2,
            )
            return True
        before = "None" if self.best is None else f"{self.best:.5f}"
        if not self.is_improvement(current, self.best):
            self._say(epoch, f"{self.monitor} did not improve from {before}")
            return False
        self._say(epoch, f"{self.monitor} improved from {before} to {current:.5f}, saving model to {path}")
        self.best = current
        return True

    def _path(self, epoch: int, batch: int | None, logs: Logs) -> str:
        known: dict[str, Any] = {"epoch": epoch + 1}
        if batch is not None:
            known["batch"] = batch + 1
        try:
            # Looks up only what the name asks for, so that logs need not be read for other names.
            return string.Formatter().vformat(self.filepath, (), ChainMap(known, logs))  # type: ignore[arg-type]
        except KeyError as error:
            raise ValueError(
                f"The filepath of ModelCheckpoint, {self.filepath!r}, asks for {error}; there are "
                f"{', '.join(map(repr, [*known, *logs]))}."
            ) from error

    def _say(self, epoch: int, what: str) -> None:
        if self.verbose > 0:
            self.say(f"Epoch {epoch + 1}: {what}")
