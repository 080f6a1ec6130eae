"""Ending training that has gone wrong."""

from __future__ import annotations

import math
from typing import Any

from torchfunc.callbacks.base import Callback, Logs

__all__ = ["TerminateOnNaN"]


class TerminateOnNaN(Callback):
    """Stop training when the loss is no finite number, and say where it comes from.

    The loss is looked at after every batch, so training waits for the device each time.

    Args:
        raise_error: whether to raise at once, so that no callback's `on_train_end` is called, rather than to stop.

    Raises:
        RuntimeError: in `fit`, when the loss is NaN or infinite and `raise_error` is set.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.array([[np.inf]])
    >>> history = model.fit(x, x, epochs=9, verbose=0, callbacks=[callbacks.TerminateOnNaN()])
    Batch 0: Invalid loss, terminating training. Input 'input_layer' holds inf at [0, 0]
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error
        self._run: Any = None

    def set_run(self, run: Any) -> None:
        """Note the run, which knows its batches."""
        self._run = run

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Forget the run, and its data with it."""
        self._run = None

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        why = "" if self._run is None else self._run.source_of_nan()
        if self.raise_error:
            raise RuntimeError(
                f"NaN or Inf loss encountered at batch {batch}. Loss value: {loss}. Terminating training immediately. "
                f"{why}".rstrip()
            )
        self.say(f"Batch {batch}: Invalid loss, terminating training. {why}".rstrip(". "))
        self.model.stop_training = True
