"""The progress line, ProgbarLogger, and the callback that is made of functions, LambdaCallback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.viewing.progress import ProgressLine, print_message

__all__ = ["LambdaCallback", "ProgbarLogger"]


class LambdaCallback(Callback):
    """A callback made of functions.

    Args:
        on_epoch_begin, on_epoch_end: called with `(epoch, logs)`.
        on_train_begin, on_train_end: called with `(logs)`.
        on_train_batch_begin, on_train_batch_end: called with `(batch, logs)`.
        **kwargs: a function for any other hook of `Callback`.

    Raises:
        ValueError: there is no such hook.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> say = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print("epoch", epoch))
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=2, verbose=0, callbacks=[say])
    epoch 0
    epoch 1
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Callable[..., Any],
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for hook, function in given.items():
            if not (hook.startswith("on_") and hasattr(Callback, hook)):
                raise ValueError(f"LambdaCallback was given {hook!r}, but Callback has no hook of that name.")
            if function is not None:
                setattr(self, hook, function)


class ProgbarLogger(Callback):
    """Shows how far a run is and its logs so far; `fit(verbose=...)` adds one.

    Under verbose=1 there is one line an epoch that is redrawn as it goes on, under verbose=2 one line at its end.

    >>> [type(each).__name__ for each in callbacks.CallbackList(add_progbar=True).callbacks]
    ['ProgbarLogger']
    """

    batch_interval = 0.1
    first_process_only = True
    defers_logs = True

    def __init__(self) -> None:
        super().__init__()
        self._line: ProgressLine | None = None
        self._in_fit = False

    def close(self) -> None:
        """End the line that is being drawn, if there is one."""
        if self._line is not None:
            self._line.close()
            self._line = None
        self._in_fit = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """From here on validation is silent: its results are shown with the epoch's."""
        self._in_fit = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Training is over."""
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Name the epoch, and begin its line."""
        if self.params["epochs"] > 1 and self.params["verbose"]:
            print_message(f"Epoch {epoch + 1}/{self.params['epochs']}")
        self._begin()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Begin a line for `evaluate`."""
        if not self._in_fit:
            self._begin()

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Begin a line for `predict`."""
        self._begin()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Redraw the line."""
        self._update(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Redraw the line of `evaluate`."""
        if not self._in_fit:
            self._update(batch, logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Redraw the line of `predict`."""
        self._update(batch, None)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """End the line with the epoch's logs."""
        self._finish(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """End the line of `evaluate`."""
        if not self._in_fit:
            self._finish(logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """End the line of `predict`."""
        self._finish(None)

    def _begin(self) -> None:
        verbose = self.params["verbose"]
        if verbose:
            self._line = ProgressLine(self.params["steps"], draws_bar=verbose != 2)

    def _update(self, batch: int, logs: Logs | None) -> None:
        if self._line is not None:
            self._line.update(batch + 1, logs)

    def _finish(self, logs: Logs | None) -> None:
        if self._line is not None:
            self._line.target = self.params["steps"]
            self._line.finish(self.params["steps"] or 0, logs)
            self._line = None
