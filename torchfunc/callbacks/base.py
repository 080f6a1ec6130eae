"""The base class of callbacks: every hook, doing nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from torchfunc.errors import SuggestsAttributes
from torchfunc.viewing.progress import print_message

__all__ = ["Callback", "Logs", "without_wrapper"]

Logs = Mapping[str, Any]


class Callback(SuggestsAttributes):
    """Base class: override the hooks you need.

    `logs` holds plain numbers under Keras' names ("loss", "accuracy", "val_loss"). A hook for batches that is not
    overridden costs nothing; one that is makes training wait for the device at each batch, since its logs are read.

    Attributes:
        params: "verbose", "epochs" and "steps" of the run.
        model: the model that is trained.
        batch_interval: seconds that must lie between two calls of a hook for the end of a batch; 0 calls it for each.
        idle_hooks: the hooks that the class defines but that do nothing as this callback was made, so that they need
            not be called. A subclass' own are called all the same.
        defers_logs: whether the hooks for the end of a batch get logs that are read from the device only when they are
            looked at: a `MutableMapping`, and not a dict.
        runs_last: whether the callback is called after all others, wherever it stands in the list.
        first_process_only: whether, if several processes train the model, the callback is of use in the first alone.
        all_processes: whether, if several processes train the model, the callback is needed in each of them.
        is_first_process: whether this is the first, or the only one, of these: the one that writes and prints.

    >>> class Counter(callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=2, verbose=0, callbacks=[Counter()])
    0 ['loss']
    1 ['loss']
    """

    batch_interval = 0.0
    idle_hooks: tuple[Callable[..., None], ...] = ()
    defers_logs = False
    runs_last = False
    first_process_only = False
    all_processes = False
    is_first_process = True

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model that is trained."""
        return without_wrapper(self._model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before the run with its parameters."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called before the run with the model."""
        self._model = model

    def set_run(self, run: Any) -> None:
        """Called before `fit` with its `TrainingRun`, which can return its state and resume another's."""

    def say(self, message: str) -> None:
        """Print a line above what is being drawn, in the first process."""
        if self.is_first_process:
            print_message(message)

    def state_dict(self) -> dict[str, Any]:
        """What the callback must know to continue after an interruption: tensors, numbers, text, and lists of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; called after `on_train_begin` when `BackupAndRestore` restores."""

    def after_run(self) -> None:
        """Called however a run ended, also by an error."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called when `fit` begins."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called when `fit` ends, with the logs of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before an epoch; `epoch` counts from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after an epoch and its validation, whose logs start with "val_"."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before a training batch; `batch` counts from 0 in each epoch."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after a training batch, with the logs of the epoch so far."""
        self.on_batch_end(batch, logs=logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """The old name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """The old name of `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called when `evaluate`, or the validation in `fit`, begins."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called when `evaluate` or the validation ends, with its results."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before a batch of `evaluate` or of the validation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after a batch of `evaluate` or of the validation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Called when `predict` begins."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Called when `predict` ends."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before a batch of `predict`."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after a batch of `predict`, with its outputs under "outputs"."""


def without_wrapper(model: Any) -> Any:
    """The model that somebody wrote, of one that `DistributedDataParallel` may be around."""
    return model.module if isinstance(model, DistributedDataParallel) else model
