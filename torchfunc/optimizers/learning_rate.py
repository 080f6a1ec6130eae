"""The learning rate of an optimizer: a number that can be set, a schedule, or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfunc.optimizers.host_number import HostNumber
from torchfunc.registry import deserialize_keras_object, serialize_keras_object
from torchfunc.schedules import Scalar

__all__ = ["LearningRate", "RateSource", "checked_rate", "rate_from_config"]

LearningRate = float | Callable[..., Any]
"""A number, a schedule `f(iterations)`, or a function without arguments."""


class RateSource:
    """A learning rate. A number is stored in a tensor, so that a compiled step sees it change.

    Args:
        rate: a number, a schedule or a function.

    Attributes:
        tensor: the tensor of shape () that holds the number; None if the rate comes from a function.
        function: the schedule or function; None if the rate is a number.

    Raises:
        ValueError: `rate` is something else.
    """

    def __init__(self, rate: LearningRate) -> None:
        self.tensor: Tensor | None = None
        self._number: HostNumber | None = None
        self.function: Callable[..., Any] | None = None
        self._takes_step = False
        if callable(rate) and not isinstance(rate, Tensor):
            self.follow(rate)
        else:
            # Even if the optimizer is made within `inference_mode`, the tensor has to be one that can be changed later.
            with torch.inference_mode(False):
                self.tensor = torch.zeros((), dtype=torch.float32)
            self._number = HostNumber(self.tensor)
            self._number.set(checked_rate(rate))

    def follow(self, function: Callable[..., Any]) -> None:
        """From now on, take the rate from this schedule or function."""
        self.tensor, self._number, self.function = None, None, function
        parameters = inspect.signature(function).parameters.values()
        self._takes_step = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)

    def set(self, value: Any) -> bool:
        """Change the number; False if there is none, since the rate comes from a function."""
        if self._number is None:
            return False
        self._number.set(checked_rate(value))
        return True

    def current(self, step: Scalar) -> Scalar:
        """The tensor, or what the schedule says for this step."""
        if self.tensor is not None:
            return self.tensor
        assert self.function is not None
        return self.function(step) if self._takes_step else self.function()

    def outside_graph(self, iterations: HostNumber, dtype: torch.dtype) -> Scalar:
        """The rate as a number; as a tensor of shape () only if a function of the user's returns one.

        Schedules that say that they take numbers get one; others, as in Keras, the step count as a tensor.
        """
        if self._number is not None:
            return self._number.get()
        takes_numbers = getattr(self.function, "takes_numbers", False)
        rate = self.current(iterations.get() if takes_numbers else iterations.tensor)
        return rate.to(iterations.tensor.device, dtype) if isinstance(rate, Tensor) else rate

    def in_graph(self, iterations: Tensor, dtype: torch.dtype) -> Tensor:
        """The rate as a tensor of shape ()."""
        takes_numbers = getattr(self.function, "takes_numbers", False)
        rate = self.current(iterations.to(dtype) if takes_numbers else iterations)
        if isinstance(rate, Tensor):
            return rate.to(iterations.device, dtype)
        return torch.full((), rate, dtype=dtype, device=iterations.device)

    def get_config(self) -> Any:
        """The number, or the config of the schedule."""
        return serialize_keras_object(self.function) if self._number is None else self._number.get()


def rate_from_config(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The number as it is, or the schedule that a config describes."""
    return deserialize_keras_object(config, custom_objects) if isinstance(config, dict) else config


def checked_rate(value: Any) -> float:
    """`value` as a number.

    Raises:
        ValueError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"`learning_rate` is a number, a schedule or a function, got {value!r} ({type(value).__name__})."
        ) from None
