"""Any `torch.optim.Optimizer` behind the protocol of our own.

Outside of a graph it is driven as in any loop: gradients are put into `grad`, then `step()` is called. In a graph
nothing can be put into `grad`, so gradients are copied into tensors that lie there already; state that the optimizer
makes in its first step has to be there, too. `prepare_capture` sees to both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchfunc.graph import has_step_hooks
from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.host_number import HostNumber, in_graph
from torchfunc.optimizers.learning_rate import checked_rate
from torchfunc.optimizers.state import contains

__all__ = ["TorchOptimizer"]

OptimizerFactory = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


class TorchOptimizer(Optimizer):
    """A torch optimizer that is driven like one of ours; its arguments and formulas are torch's.

    Args:
        optimizer: an instance, or a class, `functools.partial` or function that takes the weights and returns one.

    Raises:
        TypeError: the function returns something else.
        ValueError: the optimizer's `step` needs a closure (LBFGS), which one step of `fit` cannot give.

    >>> model = Sequential([Input((3,)), layers.Dense(1)])
    >>> optimizer = optimizers.TorchOptimizer(torch.optim.SGD(model.parameters(), lr=0.5))
    >>> optimizer.learning_rate
    0.5
    """

    def __init__(self, optimizer: torch.optim.Optimizer | OptimizerFactory) -> None:
        super().__init__(learning_rate=0.0)
        self._variables = [self._iterations]
        self._rates: list[HostNumber] = []
        self._stepped: list[Tensor] = []
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
        rate = checked_rate(value)
        for group in self.torch_optimizer.param_groups:
            known = self._rate_of(group)
            if known is not None:
                known.set(rate)
            elif isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _rate_of(self, group: dict[str, Any]) -> HostNumber | None:
        """The rate of a parameter group if `prepare_capture` has made a tensor of it."""
        return next((rate for rate in self._rates if rate.tensor is group["lr"]), None)

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
        known = {id(param) for group in self.torch_optimizer.param_groups for param in group["params"]}
        if not any(id(param) in known for param in params):
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
        """One `step()` on these gradients. Outside of a graph, the weights' own `grad` is as before afterwards."""
        optimizer = self.torch_optimizer
        if in_graph():
            own = [param for group in optimizer.param_groups for param in group["params"]]
            for param, gradient in zip(params, gradients, strict=True):
                if param.grad is not None:
                    param.grad.copy_(gradient)
                elif contains(own, param):
                    raise RuntimeError("A step outside of the graph and `prepare_capture()` have to come first.")
            # Without the wrapper that calls hooks and profiles.
            inspect.unwrap(type(optimizer).step)(optimizer)
            return
        before = [param.grad for param in params]
        rates = [(group, self._rate_of(group)) for group in optimizer.param_groups] if self._rates else []
        try:
            for param, gradient in zip(params, gradients, strict=True):
                # Fused kernels go through the memory of both side by side.
                alike = gradient.is_sparse or gradient.stride() == param.stride()
                param.grad = gradient if alike else torch.empty_like(param).copy_(gradient)
            for group, rate in rates:
                if rate is not None:
                    # Kernels outside of a graph take a number only.
                    group["lr"] = rate.get()
            optimizer.step()
        finally:
            for param, grad in zip(params, before, strict=True):
                param.grad = grad
            for group, rate in rates:
                if rate is not None:
                    group["lr"] = rate.tensor
        self._stepped = params

    def prepare_capture(self) -> bool:
        """Get ready for a step in a graph: gradients to copy into, and numbers that change as tensors.

        A learning rate stays a number if the class does not say that it takes tensors; among torch's own these are
        Muon, SparseAdam and Adafactor (whose formula branches on it).

        Returns:
            False if a step outside of a graph has to be made first, in which the optimizer makes its state.

        Raises:
            ValueError: it counts in Python numbers, which a graph would freeze, or has hooks, which it would leave out.
        """
        if not self._stepped:
            return False
        optimizer = self.torch_optimizer
        _check_capturable(optimizer)
        own = [param for group in optimizer.param_groups for param in group["params"]]
        for param in own:
            if param.grad is None and contains(self._stepped, param):
                param.grad = torch.zeros_like(param)
        device = own[0].device
        if device.type != "cpu":
            _move_counters(optimizer, device)
        if _takes_tensor_rate(optimizer):
            for group in optimizer.param_groups:
                if not isinstance(group["lr"], Tensor):
                    double = device.type == "cpu" or any(param.dtype == torch.float64 for param in own)
                    dtype = torch.float64 if double else torch.float32
                    group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=device)
                    self._rates.append(HostNumber(group["lr"]))
            self._rates = [rate for rate in self._rates if any(g["lr"] is rate.tensor for g in optimizer.param_groups)]
        return True

    def graph_key(self) -> None:
        """None: the numbers in parameter groups may change at any time, so torch.compile's guards have to stay."""

    def _step_rate(self, in_graph: bool) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        """The class and its defaults, for optimizers that torch itself provides; parameter groups are not included.

        Raises:
            ValueError: the optimizer's class is not in `torch.optim`, or a function that is not called yet makes it.
        """
        cls, arguments = self._told()
        name = getattr(cls, "__name__", repr(cls))
        if getattr(torch.optim, name, None) is not cls:
            raise ValueError(
                f"{name} is not in torch.optim, so a config cannot name it. Take one that is, or save the model with "
                "include_optimizer=False."
            )
        return {"optimizer": name, "arguments": arguments}

    def _told(self) -> tuple[Any, dict[str, Any]]:
        """The class of the torch optimizer and its arguments, made or to be made."""
        if self._optimizer is None:
            partly = isinstance(self._factory, partial) and not self._factory.args
            return (self._factory.func, dict(self._factory.keywords)) if partly else (self._factory, {})  # type: ignore[union-attr]
        cls = type(self._optimizer)
        accepted = inspect.signature(cls).parameters
        return cls, {key: value for key, value in self._optimizer.defaults.items() if key in accepted}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> TorchOptimizer:
        """Make an optimizer of the class that the config names, when it meets its weights."""
        found = getattr(torch.optim, config["optimizer"], None)
        if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
            raise ValueError(f"There is no optimizer called {config['optimizer']!r} in torch.optim.")
        return cls(partial(found, **config["arguments"]))

    def save_state(self, names: Mapping[int, str]) -> dict[str, Any]:
        """All state: the step count, torch's `state_dict`, and the names of the weights of each parameter group.

        Args:
            names: the name of each weight, by `id`.

        Raises:
            ValueError: the optimizer holds weights without a name.
        """
        groups = [[names.get(id(param)) for param in group["params"]] for group in self.torch_optimizer.param_groups]
        if any(name is None for group in groups for name in group):
            raise ValueError(
                "The torch optimizer holds weights that are not the model's, so its state cannot be written."
            )
        return {"iterations": self._iterations, "groups": groups, "state_dict": self.torch_optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Restore what `save_state` returned, for these weights by name, in the same parameter groups.

        Raises:
            ValueError: the state belongs to other weights.
        """
        try:
            groups = [{"params": [weights[name] for name in group]} for group in state["groups"]]
            cls, arguments = self._told()
            made = cls(groups, **arguments)
            made.load_state_dict(state["state_dict"])
            self._iterations.copy_(state["iterations"])
        except (AttributeError, IndexError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"it is not the state of this optimizer ({error!r})") from error
        self._optimizer = made

    def __repr__(self) -> str:
        return f"TorchOptimizer({self._optimizer or self._factory!r})"


def _takes_tensor_rate(optimizer: torch.optim.Optimizer) -> bool:
    parameter = inspect.signature(type(optimizer)).parameters.get("lr")
    return (
        parameter is not None and "Tensor" in str(parameter.annotation) and type(optimizer) is not torch.optim.Adafactor
    )


def _move_counters(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let step counts live on the device, as torch does if `capturable=True` is given from the beginning."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    for entry in optimizer.state.values():
        for key, value in entry.items():
            if isinstance(value, Tensor) and value.shape == ():
                entry[key] = value.to(device)


def _check_capturable(optimizer: torch.optim.Optimizer) -> None:
    name = type(optimizer).__name__
    numbers = {
        str(key)
        for entry in optimizer.state.values()
        for key, value in entry.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    if numbers:
        raise ValueError(
            f"{name} keeps Python numbers in its state ({', '.join(sorted(numbers))}), which a compiled step would "
            "freeze. Train without compiling (jit_compile=False), or take an optimizer that counts in tensors."
        )
    if has_step_hooks(optimizer):
        raise ValueError(
            f"{name} has step hooks, which a compiled step would leave out. Train without compiling "
            "(jit_compile=False), or do their work in a callback."
        )
