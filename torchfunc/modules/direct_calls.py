"""The inner fast path of a drawn model: its generated forward, calling the layers' `forward` directly.

`layer(x)` looks for hooks and then calls `layer.forward(x)`. In the generated code that is `self.layer(x)`; so, with
something in place of `self` whose attributes are bound methods, the same code makes the calls without looking (and
without the search of `nn.Module` for an attribute). What is hooked, compiled, not built, or has a `__call__` of its own
stays as it is. Weights, `training` and settings are read when the model runs, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from itertools import repeat
from operator import attrgetter, contains
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import activations
from torchfunc.graph import GLOBAL_HOOKS, are_calls_watched, hook_tables, is_hooked
from torchfunc.layers import Dense, InputLayer, Layer

__all__ = ["DirectCalls"]

_forward_of = attrgetter("forward")


class DirectCalls:
    """What to give to the generated forward of a model as `self`, and whether that is right still.

    It does not refer to the model, which refers to it.

    Args:
        model: the model.
        modules_read: the submodules that are needed as they are.

    Attributes:
        calls: stands for the model: its layers are there as what is to be called.
        misses: how often on end calling the layers would not have been the same.
    """

    def __init__(self, model: nn.Module, modules_read: Set[str]) -> None:
        modules = model._modules
        direct = {key: module if key in modules_read else _direct(module) for key, module in modules.items()}
        self.calls = _Calls(direct, model._parameters, model._buffers)
        self.misses = 0
        # All of these must stay as they are.
        self._modules = list(modules.values())
        self._watched = [module for key, module in modules.items() if module is not None and direct[key] is not module]
        self._types: list[Any] = list(map(type, self._watched))
        self._classes = list(dict.fromkeys(self._types))
        self._forwards = list(map(_forward_of, self._classes))
        self._hooks = [*GLOBAL_HOOKS, *(table for module in (model, *self._watched) for table in hook_tables(module))]
        self._attributes = [module.__dict__ for module in self._watched]

    def hold(self, model: nn.Module) -> bool:
        """Whether calling the layers of the model, the one given before, would do the same."""
        hold = (
            not are_calls_watched()
            and not any(self._hooks)
            and list(model._modules.values()) == self._modules
            and list(map(type, self._watched)) == self._types
            and list(map(_forward_of, self._classes)) == self._forwards
            and "forward" not in model.__dict__
            and "_compiled_call_impl" not in model.__dict__
            and not any(map(contains, self._attributes, repeat("forward")))
            and not any(map(contains, self._attributes, repeat("_compiled_call_impl")))
        )
        self.misses = 0 if hold else self.misses + 1
        return hold


class _Calls:
    """Its attributes are what to call for each layer, and a model's own parameters and buffers as they are now."""

    def __init__(self, calls: Mapping[str, Any], parameters: Mapping[str, Any], buffers: Mapping[str, Any]) -> None:
        self.__parameters, self.__buffers = parameters, buffers
        self.__dict__.update(calls)

    def __getattr__(self, name: str) -> Any:
        return self.__parameters[name] if name in self.__parameters else self.__buffers[name]


def _direct(module: nn.Module | None) -> Any:
    """What to call in place of a module: its forward if that is all that a call of it does, else the module."""
    if module is None or isinstance(module, InputLayer):
        # (An input layer is not called.)
        return module
    kind = type(module)
    is_drawn_model = getattr(kind, "runs_its_graph", False)
    is_own_call = not is_drawn_model and kind.__call__ not in (nn.Module.__call__, Layer.__call__)
    if is_own_call or (isinstance(module, Layer) and (module.has_masks_in_graphs or not module.built)):
        return module
    if is_hooked(module) or "_compiled_call_impl" in module.__dict__ or isinstance(module, torch.jit.ScriptModule):
        return module
    if is_drawn_model:
        return MethodType(module.__dict__["_entry"], module)
    return MethodType(_KERNELS.get((kind, kind.forward), kind.forward), module)


# As attributes of the module, weights would be looked for in other places first.


def _dense(layer: Dense, inputs: Tensor) -> Tensor:
    weights, activation = layer._parameters, layer.activation
    if "weight" not in weights or "bias" not in weights:
        return layer.forward(inputs)
    try:
        outputs = F.linear(inputs, weights["weight"], weights["bias"])  # type: ignore[arg-type]
    except RuntimeError:
        # Inputs of another dtype are rare, and asking for it would take time. (What else is wrong is so here too.)
        return layer.forward(inputs)
    return outputs if activation is activations.linear else activation(outputs)


# (The parameter is called as torch calls it, since a call may name it.)
def _linear(module: nn.Linear, input: Tensor) -> Tensor:
    weights = module._parameters
    if "weight" not in weights or "bias" not in weights:
        return module.forward(input)
    return F.linear(input, weights["weight"], weights["bias"])  # type: ignore[arg-type]


# The forward of cheap layers, where finding the weights takes as long as computing with them.
_KERNELS: dict[tuple[type, Any], Callable[..., Any]] = {
    (Dense, Dense.forward): _dense,
    (nn.Linear, nn.Linear.forward): _linear,
}
