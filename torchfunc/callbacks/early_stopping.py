"""Ending training when it no longer helps."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torchfunc.callbacks.base import Logs
from torchfunc.callbacks.monitor import MonitorCallback

__all__ = ["EarlyStopping"]


_STATE = ("wait", "stopped_epoch", "best", "best_epoch", "best_weights")


class EarlyStopping(MonitorCallback):
    """Stop training when a logged number no longer improves.

    Args:
        monitor: its name in the logs.
        min_delta: a change by less than this is no improvement.
        patience: how many epochs without improvement are waited for.
        verbose: whether to say so when training stops (0 or 1).
        mode: "min", "max" or "auto".
        baseline: the value that must be beaten for an epoch to count as an improvement.
        restore_best_weights: whether to restore the weights of the best epoch at the end.
        start_from_epoch: how many epochs to wait before watching at all.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> stop = callbacks.EarlyStopping(monitor="loss", patience=2)
    >>> x = np.zeros((8, 1))  # nothing to learn: the loss is 0 from the first epoch on
    >>> len(model.fit(x, x, epochs=100, verbose=0, callbacks=[stop]).epoch)
    3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._start()

    def _start(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: dict[str, Any] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget what an earlier `fit` saw."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare with the best so far."""
        current = self.get_monitor_value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._remember(epoch)
        self.wait += 1
        if self.is_improvement(current, self.best):
            self.best = current
            self._remember(epoch)
            if self.baseline is None or self.is_improvement(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Say that training stopped, and restore the best weights if asked to."""
        if self.stopped_epoch > 0 and self.verbose:
            self.say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                self.say(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.load_state_dict(self.best_weights)

    def get_monitor_value(self, logs: Logs | None) -> float | None:
        """The watched number; a warning and None if it is not in the logs."""
        logs = logs or {}
        value = logs.get(self.monitor)
        if value is None:
            warnings.warn(
                f"Early stopping conditioned on metric `{self.monitor}` which is not available. "
                f"Available metrics are: {','.join(logs)}",
                stacklevel=2,
            )
        return value

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and how long ago it was."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name in _STATE:
            setattr(self, name, state[name])

    def _remember(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = copy.deepcopy(self.model.state_dict())
