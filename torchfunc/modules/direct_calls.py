"""The inner fast path of a drawn model: its generated forward, calling the layers' `forward` directly.

`layer(x)` looks for hooks and then calls `layer.forward(x)`. The generated code takes what it calls from
`self._modules`; so, with something in place of `self` whose table holds bound methods, the same code makes the calls
without looking. What is hooked, compiled, not built, or has a `__call__` of its own stays in the table as it is.
Weights, `training` and settings are read when the model runs, as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from operator import attrgetter, contains
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import activations
from torchfunc.layers import Dense, Layer
from torchfunc.modules.hooks import GLOBAL_HOOKS, hook_tables, is_hooked

if TYPE_CHECKING:
    from torchfunc.modules.graph_network import GraphNetwork

__all__ = ["DirectCalls"]

_forward_of = attrgetter("forward")


class DirectCalls:
    """Stands for a model in its generated forward.

    Args:
        model: the model.
    """

    def __init__(self, model: GraphNetwork) -> None:
        self._model = model
        modules = model._modules
        self._seen = list(modules.values())
        self._modules = {key: module if module is None else _direct(module) for key, module in modules.items()}
        # All of these must stay as they are.
        direct = [each for key, each in modules.items() if each is not None and self._modules[key] is not each]
        self._watched = [model, *direct]
        self._types: list[Any] = list(map(type, self._watched))
        self._classes = list(dict.fromkeys(self._types))
        self._forwards = list(map(_forward_of, self._classes))
        self._hooks = [*GLOBAL_HOOKS, *(table for module in self._watched for table in hook_tables(module))]
        self._attributes = [module.__dict__ for module in self._watched]
        self.misses = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hold(self) -> bool:
        """Whether calling the layers would do the same. `misses` counts how often on end it would not have."""
        held = (
            not any(self._hooks)
            and list(self._model._modules.values()) == self._seen
            and list(map(type, self._watched)) == self._types
            and list(map(_forward_of, self._classes)) == self._forwards
            and not any(map(contains, self._attributes, repeat("forward")))
            and not any(map(contains, self._attributes, repeat("_compiled_call_impl")))
        )
        self.misses = 0 if held else self.misses + 1
        return held


def _direct(module: nn.Module) -> Callable[..., Any]:
    """What to call in place of a module: its forward if that is all that a call of it does, else the module."""
    kind = type(module)
    if kind.__call__ not in (nn.Module.__call__, Layer.__call__) or (isinstance(module, Layer) and not module.built):
        return module
    if is_hooked(module) or "_compiled_call_impl" in module.__dict__ or isinstance(module, torch.jit.ScriptModule):
        return module
    return MethodType(_KERNELS.get((kind, kind.forward), kind.forward), module)


# As attributes of the module, weights would be looked for in other places first.


def _dense(layer: Dense, inputs: Tensor) -> Tensor:
    weights, activation = layer._parameters, layer.activation
    if "weight" not in weights or "bias" not in weights:
        return layer.forward(inputs)
    outputs = F.linear(inputs, weights["weight"], weights["bias"])  # type: ignore[arg-type]
    return outputs if activation is activations.linear else activation(outputs)


def _linear(module: nn.Linear, inputs: Tensor) -> Tensor:
    weights = module._parameters
    if "weight" not in weights or "bias" not in weights:
        return module.forward(inputs)
    return F.linear(inputs, weights["weight"], weights["bias"])  # type: ignore[arg-type]


# The forward of cheap layers, where finding the weights takes as long as computing with them.
_KERNELS: dict[tuple[type, Any], Callable[..., Any]] = {
    (Dense, Dense.forward): _dense,
    (nn.Linear, nn.Linear.forward): _linear,
}
