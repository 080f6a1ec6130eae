"""Any `torch.optim.Optimizer` behind the protocol of our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.learning_rate import checked_rate

__all__ = ["TorchOptimizer"]

OptimizerFactory = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


class TorchOptimizer(Optimizer):
    """A torch optimizer that is driven like one of ours; its arguments and formulas are torch's.

    Args:
        optimizer: an instance, or a class, `functools.partial` or function that takes the weights and returns one.

    Raises:
        TypeError: the function returns something else.
        ValueError: the optimizer's `step` needs a closure (LBFGS), which one step of `fit` cannot give.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | OptimizerFactory) -> None:
        super().__init__(learning_rate=0.0)
        self._variables = [self._iterations]
        self._factory: OptimizerFactory | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        if isinstance(optimizer, torch.optim.Optimizer):
            self._adopt(optimizer)
        else:
            self._factory = optimizer

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer behind this one.

        Raises:
            ValueError: it is to be made from the model's weights, and has not met them yet.
        """
        if self._optimizer is None:
            raise ValueError("This optimizer is made when it first meets the model's weights, in `compile` or `fit`.")
        return self._optimizer

    def _adopt(self, optimizer: torch.optim.Optimizer) -> None:
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise ValueError(
                f"{type(optimizer).__name__} evaluates the loss many times a step, through a closure, so it does not "
                "fit into `fit`. Use it in a loop of your own, or take another optimizer."
            )
        self._optimizer = optimizer
        self.name = type(optimizer).__name__.lower()

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the first parameter group. Setting it sets that of all groups."""
        return self.torch_optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        for group in self.torch_optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = checked_rate(value)

    @property
    def variables(self) -> list[Tensor]:
        """The step count, then the tensors in the torch optimizer's state."""
        state = self._optimizer.state.values() if self._optimizer else ()
        return [self._iterations, *(v for entry in state for v in entry.values() if isinstance(v, Tensor))]

    def build(self, variables: Iterable[Tensor]) -> None:
        """Make the torch optimizer if it is not there yet.

        Raises:
            ValueError: it holds none of these weights.
        """
        params = list(variables)
        if self._optimizer is None:
            assert self._factory is not None
            made = self._factory(params)
            if not isinstance(made, torch.optim.Optimizer):
                raise TypeError(
                    f"{self._factory!r} was called with the model's weights to make an optimizer, and returned "
                    f"{made!r} ({type(made).__name__}) instead of a torch.optim.Optimizer."
                )
            self._adopt(made)
        held = {id(param) for group in self.torch_optimizer.param_groups for param in group["params"]}
        if not any(id(param) in held for param in params):
            raise ValueError(
                f"The torch optimizer {type(self.torch_optimizer).__name__} holds none of the model's "
                f"{len(params)} trainable weights, so training would change nothing. Make it from "
                "`model.parameters()`, or pass its class or a functools.partial of it to `compile`."
            )
        self._params = params
        self.built = True

    def _check_known(self, params: Any) -> None:
        """Weights that the torch optimizer does not hold are left alone, as in any torch loop."""

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Any) -> None:
        """One `step()` on these gradients; the weights' own `grad` is as before afterwards."""
        before = [param.grad for param in params]
        try:
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = gradient
            self.torch_optimizer.step()
        finally:
            for param, grad in zip(params, before, strict=True):
                param.grad = grad

    def _step_rate(self) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        """The class and its defaults, for optimizers that torch itself provides; parameter groups are not kept.

        Raises:
            ValueError: the optimizer is not made yet, or its class is not in `torch.optim`.
        """
        cls = type(self.torch_optimizer)
        if getattr(torch.optim, cls.__name__, None) is not cls:
            raise ValueError(f"{cls.__name__} is not in torch.optim, so a config cannot name it.")
        accepted = inspect.signature(cls).parameters
        defaults = {key: value for key, value in self.torch_optimizer.defaults.items() if key in accepted}
        return {"optimizer": cls.__name__, "arguments": defaults}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> TorchOptimizer:
        """Make an optimizer of the class that the config names, when it meets its weights."""
        found = getattr(torch.optim, config["optimizer"], None)
        if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
            raise ValueError(f"There is no optimizer called {config['optimizer']!r} in torch.optim.")
        return cls(partial(found, **config["arguments"]))

    def __repr__(self) -> str:
        return f"TorchOptimizer({self._optimizer or self._factory!r})"
