"""The base of callbacks that watch one number of the logs."""

from __future__ import annotations

import numpy as np

from torchfunc.callbacks.base import Callback

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """Base of callbacks that ask whether a logged number has improved.

    Args:
        monitor: its name in the logs, such as "val_loss".
        mode: "min" if smaller is better, "max" if larger is; "auto" tells by the name, or asks the metric.
        baseline: the value to beat at first.
        min_delta: a change by less than this is no improvement.

    Raises:
        ValueError: `mode` is none of the three; or, when training, "auto" cannot tell.

    >>> watch = callbacks.MonitorCallback(monitor="val_loss", mode="min")
    >>> watch.monitor
    'val_loss'
    """

    def __init__(
        self, monitor: str = "val_loss", mode: str = "auto", baseline: float | None = None, min_delta: float = 0
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{type(self).__name__}: mode is 'auto', 'min' or 'max', got {mode!r}.")
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)

    def is_improvement(self, value: float, reference: float | None) -> bool:
        """Whether `value` is better than `reference` by more than `min_delta`. A NaN is worse than any number."""
        if np.isnan(value) or reference is None or np.isnan(reference):
            return not np.isnan(value)
        # In float32, as logs are and as Keras compares: 0.7 is not better than 0.8 by more than 0.1.
        with np.errstate(over="ignore"):
            if self._wants_less():
                return bool(np.float32(value + self.min_delta) < np.float32(reference))
            return bool(np.float32(value - self.min_delta) > np.float32(reference))

    def _wants_less(self) -> bool:
        if self.mode != "auto":
            return self.mode == "min"
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            return True
        for metric in self.model.metrics:
            direction = getattr(metric, "direction", None)
            if direction is not None and (name == metric.name or name.endswith(f"_{metric.name}")):
                return direction == "down"
        raise ValueError(
            f"{type(self).__name__} cannot tell whether {self.monitor!r} should grow or shrink. "
            "Pass mode='min' or mode='max'."
        )
