"""The logs of each epoch as a line in a CSV file."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

import numpy as np

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.saving.files import PathLike

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Write the logs of each epoch to a CSV file, with the epoch (from 0) in front.

    The columns are those of the first epoch, and "val_..." ones if that had none, or those of the file that is appended
    to (logs that it has no column for are left out, with a warning); "NA" stands for what is missing. When
    `BackupAndRestore` resumes an interrupted training, the file continues as if there had been no interruption.

    Args:
        filename: the file.
        separator: what stands between the columns.
        append: whether to add to a file that is there, rather than to begin it anew.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), verbose=0, callbacks=[callbacks.CSVLogger("log.csv")])
    >>> with open("log.csv") as file:
    ...     print(file.readline().strip())
    epoch,loss,val_loss
    """

    first_process_only = True

    def __init__(self, filename: PathLike, separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.sep = separator
        self.filename = os.fspath(filename)
        # The working directory may change while a model trains.
        self._path = os.path.abspath(self.filename)
        self.append = append
        self.keys: list[str] | None = None
        # Where to cut the file off before the first line is written; None to leave it as it is.
        self._cut: int | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """See that the file can be written to. It is emptied, if need be, when the first line is written."""
        with self._open():
            pass
        self.keys = None
        self._cut = None if self.append else 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write a line."""
        logs = logs or {}
        if self.keys is None:
            self.keys = sorted(logs)
            if not any(key.startswith("val_") for key in self.keys):
                self.keys += [f"val_{key}" for key in self.keys]
            self.keys = self._columns_of_file() or self.keys
            left_out = [key for key in logs if key not in self.keys]
            if left_out:
                warnings.warn(
                    f"{self.filename} has no columns for {', '.join(left_out)}, which are left out. Log to a new file "
                    "to have them.",
                    stacklevel=2,
                )
        with self._open() as file:
            if self._cut is not None:
                file.truncate(self._cut)
                self._cut = None
            writer = csv.DictWriter(file, ["epoch", *self.keys], delimiter=self.sep)
            if not os.path.getsize(self._path):
                writer.writeheader()
            writer.writerow({"epoch": epoch, **{key: _cell(logs.get(key, "NA")) for key in self.keys}})

    def state_dict(self) -> dict[str, Any]:
        """The columns, and how much of the file there is."""
        return {"keys": self.keys, "size": os.path.getsize(self._path)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop what was written to the file after that."""
        self.keys, self._cut = state["keys"], state["size"]

    def _columns_of_file(self) -> list[str]:
        """The columns behind the epoch of a file that is appended to; none if it is empty."""
        if not self.append:
            return []
        with open(self._path, newline="", encoding="utf-8") as file:
            return next(csv.reader(file, delimiter=self.sep), [])[1:]

    def _open(self) -> TextIO:
        return open(self._path, "a", newline="", encoding="utf-8")


def _cell(value: Any) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, str) and np.ndim(value) > 0:  # type: ignore[arg-type]
        return f'"[{", ".join(map(str, value))}]"'
    return value
