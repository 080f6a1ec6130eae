"""Curves in a notebook while the model trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.viewing.curves import Curve, plot_curves
from torchfunc.viewing.printing import in_notebook

__all__ = ["LivePlot"]


class LivePlot(Callback):
    """Draw the curves of loss and metrics in a notebook, anew at the end of each epoch, in one place.

    Outside of a notebook nothing is drawn, with a warning.

    Args:
        metrics: the names to draw, such as "loss" or ["loss", "accuracy"]; by default all that are single numbers.

    Raises:
        ImportError: in a run, when matplotlib is not installed: pip install 'torchfunc[notebook]'.
        ValueError: at the end of the first epoch, when nothing of a name was logged.

    >>> live = callbacks.LivePlot()  # in a notebook: model.fit(x, y, epochs=20, callbacks=[live])
    """

    first_process_only = True

    def __init__(self, metrics: str | Sequence[str] | None = None) -> None:
        super().__init__()
        self.metrics = metrics
        self._curves: dict[str, tuple[list[int], list[float]]] = {}
        self._shown: Any = None
        self._is_live = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin with an empty drawing."""
        self._curves, self._shown = {}, None
        self._is_live = in_notebook()
        if not self._is_live:
            warnings.warn("LivePlot draws in notebooks; this is none, so nothing is drawn.", stacklevel=2)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Draw what is known by now."""
        for name, value in (logs or {}).items():
            if isinstance(value, (int, float)):
                epochs, values = self._curves.setdefault(name, ([], []))
                epochs.append(epoch)
                values.append(value)
        if self._is_live:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display
        from matplotlib import pyplot

        curves: dict[str, Curve] = dict(self._curves)
        figure = plot_curves(curves, self.metrics)[0].figure
        # Else the notebook would show it once more at the end of the cell.
        pyplot.close(figure)
        if self._shown is None:
            self._shown = display(figure, display_id=True)
        else:
            self._shown.update(figure)
