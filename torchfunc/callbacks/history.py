"""What `fit` returns."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torchfunc.callbacks.base import Callback, Logs, without_wrapper
from torchfunc.viewing.curves import plot_curves

__all__ = ["History"]


class History(Callback):
    """What `fit` returns: the logs of every epoch.

    Attributes:
        history: one list of numbers, one for each epoch, by log name.
        epoch: the epochs that were run, from 0.
        model: the model that was trained, which has this as its `history`; None when it has ended.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=3, verbose=0)
    >>> history.epoch, sorted(history.history), len(history.history["loss"])
    ([0, 1, 2], ['loss'], 3)
    """

    # Not the model itself, which would then wait for the garbage collector.
    _reference: weakref.ref[Any] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []
        # Of each number: validation need not run in every epoch.
        self._epochs: dict[str, list[int]] = {}

    @property
    def model(self) -> Any:
        """The model that was trained."""
        return None if self._reference is None else self._reference()

    def set_model(self, model: Any) -> None:
        """Called before the run with the model."""
        self._reference = None if model is None else weakref.ref(without_wrapper(model))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reference": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.set_model(state["_reference"])

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start counting epochs anew."""
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Keep the logs."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self._epochs.setdefault(name, []).append(epoch)
        self.model.history = self

    def state_dict(self) -> dict[str, Any]:
        """The logs so far."""
        return {"history": self.history, "epoch": self.epoch, "epochs": self._epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from these logs."""
        self.history, self.epoch, self._epochs = state["history"], state["epoch"], state["epochs"]

    def plot(self, metrics: str | Sequence[str] | None = None) -> Any:
        """Draw the curves with matplotlib, the numbers of training and validation together.

        Args:
            metrics: the names to draw, such as "loss" or ["loss", "accuracy"]; by default all that are single numbers.

        Returns:
            an array of matplotlib axes, one for each name. Their figure is `axes[0].figure`.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: nothing was logged, or nothing of that name.

        >>> model = Sequential([Input((1,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse", metrics=["mae"])
        >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=3, verbose=0)
        >>> [axes.get_ylabel() for axes in history.plot()]
        ['loss', 'mae']
        """
        curves = {name: (self._epochs[name], values) for name, values in self.history.items()}
        return plot_curves({name: curve for name, curve in curves.items() if _are_numbers(curve[1])}, metrics)

    def to_frame(self) -> Any:
        """The logs as a pandas DataFrame: a row for each epoch (from 0), a column for each log name.

        An epoch that has no number of a name, because it was not validated, has NaN there.

        Raises:
            ImportError: pandas is not installed.

        >>> model = Sequential([Input((1,)), layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=3, verbose=0)
        >>> history.to_frame().shape
        (3, 1)
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("A table of the history needs pandas: pip install pandas") from error
        columns = {name: pd.Series(values, index=self._epochs[name]) for name, values in self.history.items()}
        frame = pd.DataFrame(columns)
        frame.index.name = "epoch"
        return frame


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values)
