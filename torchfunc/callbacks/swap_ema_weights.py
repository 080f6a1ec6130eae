"""Evaluating with the moving averages of the weights."""

from __future__ import annotations

from typing import Any

from torchfunc.callbacks.base import Callback, Logs

__all__ = ["SwapEMAWeights"]


class SwapEMAWeights(Callback):
    """Put the optimizer's moving averages in the weights' place for evaluation and prediction, and swap back after.

    The optimizer must be made with `use_ema=True`. Nothing is copied but for the moment of the swap.

    Args:
        swap_on_epoch: whether the averages are also there from the end of an epoch to the beginning of the next, for
            callbacks that come after this one, such as `ModelCheckpoint`.

    Raises:
        ValueError: in a run, when the optimizer keeps no averages.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile(optimizers.SGD(0.1, use_ema=True), "mse")
    >>> swap = callbacks.SwapEMAWeights()  # validation and checkpoints see the averages
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), verbose=0, callbacks=[swap])
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Swap back."""
        if self.swap_on_epoch:
            self._use_averages(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Swap the averages in."""
        if self.swap_on_epoch:
            self._use_averages(True)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Swap the averages in."""
        self._use_averages(True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Swap back."""
        self._use_averages(False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Swap the averages in."""
        self._use_averages(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Swap back."""
        self._use_averages(False)

    def state_dict(self) -> dict[str, Any]:
        """Whether the averages are in the weights' place."""
        return {"averages_in_use": self.model.optimizer.averages_in_use}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Note whether they are; the weights and averages themselves are restored."""
        self.model.optimizer.averages_in_use = state["averages_in_use"]

    def _use_averages(self, wanted: bool) -> None:
        optimizer = self.model.optimizer
        if optimizer is None or not optimizer.use_ema:
            raise ValueError(
                "SwapEMAWeights needs an optimizer that keeps moving averages of the weights: make it with "
                f"use_ema=True. Got {optimizer!r}."
            )
        if optimizer.built and optimizer.averages_in_use != wanted:
            optimizer.swap_averages()
