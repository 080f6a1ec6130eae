"""Callbacks that change the learning rate during training."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.callbacks.monitor import MonitorCallback
from torchfunc.optimizers import TorchOptimizer

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau", "TorchLRScheduler"]


def _note_learning_rate(model: Any, logs: Logs | None) -> None:
    """Add the learning rate to the logs, which the callbacks that follow share."""
    if isinstance(logs, dict):
        logs["learning_rate"] = float(model.optimizer.learning_rate)


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of each epoch. It is added to the logs as "learning_rate".

    Args:
        schedule: called with the epoch (from 0) and the current learning rate, or with the epoch alone; returns the
            new one, a float.
        verbose: whether to say what it is set to (0 or 1).

    Raises:
        ValueError: in `fit`, when `schedule` returns something else.
        TypeError: in `fit`, when the optimizer was made with a schedule of its own.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile(optimizers.SGD(1.0), "mse")
    >>> halve = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=3, verbose=0, callbacks=[halve])
    >>> history.history["learning_rate"]
    [0.5, 0.25, 0.125]
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Set the learning rate."""
        current = float(self.model.optimizer.learning_rate)
        rate = self.schedule(epoch, current) if _takes_two(self.schedule) else self.schedule(epoch)
        if not isinstance(rate, (float, np.float32, np.float64)):
            raise ValueError(f"The output of the `schedule` function should be a float. Got: {rate}")
        self.model.optimizer.learning_rate = rate
        if self.verbose > 0:
            self.say(f"Epoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Log it."""
        _note_learning_rate(self.model, logs)


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with two arguments."""
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    return True


class ReduceLROnPlateau(MonitorCallback):
    """Multiply the learning rate by `factor` when a logged number no longer improves.

    The learning rate is added to the logs as "learning_rate".

    Args:
        monitor: its name in the logs.
        factor: less than 1.
        patience: how many epochs without improvement are waited for.
        verbose: whether to say so (0 or 1).
        mode: "min", "max" or "auto".
        min_delta: a change by less than this is no improvement.
        cooldown: how many epochs to wait after a reduction before watching again.
        min_lr: the learning rate does not fall below this.

    Raises:
        ValueError: `factor` is not less than 1, or `mode` is unknown.
        TypeError: in `fit`, when the optimizer was made with a schedule of its own.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile(optimizers.SGD(1.0), "mse")
    >>> reduce = callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1)
    >>> x = np.zeros((8, 1))  # nothing to learn: the loss is 0 from the first epoch on
    >>> model.fit(x, x, epochs=4, verbose=0, callbacks=[reduce]).history["learning_rate"]
    [1.0, 1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau does not support a factor >= 1.0. Received factor={factor}")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self._start()

    def _start(self) -> None:
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget what an earlier `fit` saw."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare with the best so far."""
        _note_learning_rate(self.model, logs)
        logs = logs or {}
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"Learning rate reduction is conditioned on metric `{self.monitor}` which is not available. Available "
                f"metrics are: {','.join(logs)}.",
                stacklevel=2,
            )
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch):
                self.cooldown_counter = self.cooldown
                self.wait = 0

    def in_cooldown(self) -> bool:
        """Whether a reduction was so recent that nothing is watched."""
        return self.cooldown_counter > 0

    def _reduce(self, epoch: int) -> bool:
        """Lower the learning rate; returns whether it could be lowered."""
        before = float(self.model.optimizer.learning_rate)
        if before <= np.float32(self.min_lr):
            return False
        rate = max(before * self.factor, self.min_lr)
        self.model.optimizer.learning_rate = rate
        if self.verbose > 0:
            self.say(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.")
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and how long ago it was."""
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.wait, self.cooldown_counter = state["best"], state["wait"], state["cooldown_counter"]


class TorchLRScheduler(Callback):
    """Step a learning rate scheduler of `torch.optim.lr_scheduler`.

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.compile(optimizer, "mse")
        model.fit(x, y, callbacks=TorchLRScheduler(torch.optim.lr_scheduler.StepLR(optimizer, 10)))

    or, with any optimizer, one that is made when training begins:

        model.compile("adam", "mse")
        model.fit(x, y, callbacks=TorchLRScheduler(lambda optimizer: StepLR(optimizer, 10)))

    Args:
        scheduler: a scheduler of the torch optimizer that `compile` was given; or a class, `functools.partial` or
            function that takes a torch optimizer and returns a scheduler.
        on: "epoch" or "batch": after what a step is made.
        monitor: the number in the logs that torch's `ReduceLROnPlateau` watches.

    Raises:
        ValueError: `on` is neither; or, in `fit`, the scheduler belongs to another optimizer, or the watched number is
            not in the logs.

    >>> model = Sequential([Input((1,)), layers.Dense(1)])
    >>> model.compile(torch.optim.SGD(model.parameters(), lr=1.0), "mse")
    >>> decay = callbacks.TorchLRScheduler(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    >>> history = model.fit(np.zeros((8, 1)), np.zeros((8, 1)), epochs=3, verbose=0, callbacks=[decay])
    >>> float(model.optimizer.learning_rate)
    0.125
    """

    defers_logs = True

    def __init__(self, scheduler: Any, on: str = "epoch", monitor: str = "val_loss") -> None:
        super().__init__()
        if on not in ("epoch", "batch"):
            raise ValueError(f"TorchLRScheduler steps on 'epoch' or 'batch', got on={on!r}.")
        self.scheduler = scheduler if _is_scheduler(scheduler) else None
        self.on = on
        self.monitor = monitor
        self._factory = None if self.scheduler else scheduler
        self._optimizer: Any = None
        if on == "epoch":
            self.idle_hooks = (TorchLRScheduler.on_train_batch_end,)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Make the scheduler, or see that it belongs to the model's optimizer."""
        optimizer = self.model.optimizer
        own = optimizer.torch_optimizer if isinstance(optimizer, TorchOptimizer) else None
        if self._factory is not None and self._optimizer is not optimizer:
            self.scheduler = self._factory(own or _stand_in(optimizer))
            self._optimizer = optimizer
        assert self.scheduler is not None
        if self._factory is None and self.scheduler.optimizer is not own:
            raise ValueError(
                f"The {type(self.scheduler).__name__} belongs to an optimizer that the model is not trained with. "
                "Make it from the torch optimizer that `compile` is given, or give TorchLRScheduler a function that "
                "makes it."
            )
        self._copy_rate()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Step, if it is time."""
        if self.on == "batch":
            self._step(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Step, if it is time, and log the learning rate of the epoch."""
        _note_learning_rate(self.model, logs)
        if self.on == "epoch":
            self._step(logs)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own, and that of the optimizer which stands in for one of ours."""
        assert self.scheduler is not None
        stand_in = None if self._is_direct() else self.scheduler.optimizer.state_dict()
        return {"scheduler": self.scheduler.state_dict(), "stand_in": stand_in}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        assert self.scheduler is not None
        self.scheduler.load_state_dict(state["scheduler"])
        if not self._is_direct():
            self.scheduler.optimizer.load_state_dict(state["stand_in"])
        self._copy_rate()

    def _is_direct(self) -> bool:
        """Whether the scheduler changes the optimizer that trains, and not one that stands in for it."""
        return isinstance(self.model.optimizer, TorchOptimizer)

    def _step(self, logs: Logs | None) -> None:
        assert self.scheduler is not None
        if not self._is_direct():
            self.scheduler.optimizer.step()  # changes nothing; schedulers want to see it
        if not isinstance(self.scheduler, TorchReduceLROnPlateau):
            self.scheduler.step()
        elif logs is None or self.monitor not in logs:
            raise ValueError(
                f"TorchLRScheduler watches {self.monitor!r}, which is not in the logs; there are "
                f"{', '.join(map(repr, logs or {}))}."
            )
        else:
            self.scheduler.step(logs[self.monitor])
        self._copy_rate()

    def _copy_rate(self) -> None:
        """Give the stand-in's learning rate to the optimizer that it stands for."""
        assert self.scheduler is not None
        if not self._is_direct():
            self.model.optimizer.learning_rate = float(self.scheduler.optimizer.param_groups[0]["lr"])


def _is_scheduler(scheduler: Any) -> bool:
    return isinstance(scheduler, LRScheduler)


def _stand_in(optimizer: Any) -> torch.optim.Optimizer:
    """A torch optimizer with the learning rate of one of ours, for a scheduler to change."""
    weight = Tensor([0.0])
    return torch.optim.SGD([weight], lr=float(optimizer.learning_rate))
