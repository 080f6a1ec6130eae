"""Which outputs of a graph are probabilities, and where in it the logits are that they were made from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import activations
from torchfunc.graph import GLOBAL_HOOKS, SymbolicTensor, hook_tables, is_hooked
from torchfunc.layers.activation import Softmax
from torchfunc.layers.base.weighted_layer import ActivationLast
from torchfunc.modules.network import Network
from torchfunc.modules.recomputation import RecomputedForward

__all__ = ["OutputActivation", "find_activation"]

_SOFTMAX = (torch.softmax, torch.special.softmax, F.softmax, activations.softmax, "softmax")
_SIGMOID = (torch.sigmoid, torch.special.expit, F.sigmoid, activations.sigmoid, "sigmoid")


class OutputActivation(NamedTuple):
    """The activation that an output ends in.

    Attributes:
        kind: "softmax" (over the last axis) or "sigmoid".
        within: whether it is the end of a layer that does more; if not, the call that made the output is nothing else.
    """

    kind: str
    within: bool


def find_activation(value: SymbolicTensor, module_of: Callable[[nn.Module], nn.Module]) -> OutputActivation | None:
    """The activation that a tensor of a graph ends in; None if it is another one or not known.

    Args:
        value: the tensor.
        module_of: gives the module that is called now where the graph was drawn with another one.
    """
    node = value.node
    if value.path or not node.args:
        return None
    if node.op != "module":
        kind = _kind(node.target, value.ndim, node.args[1:], node.kwargs)
        return OutputActivation(kind, within=False) if kind else None
    module = module_of(node.target)
    if isinstance(module, Network):
        return _of_model(module, node.kwargs)
    # (While torch.compile of torch 2.11 traces this, empty dicts of torch.fx are true; their lengths are right.)
    if len(node.args) != 1 or len(node.kwargs) or _is_hooked(module):
        return None
    if not isinstance(module, ActivationLast):
        kind = _kind_of_callable(module, value.ndim)
        return OutputActivation(kind, within=False) if kind else None
    if type(module).forward is not ActivationLast.forward:
        return None
    kind = _kind_of_callable(module.activation, value.ndim)
    return OutputActivation(kind, within=True) if kind else None


def _of_model(model: Network, kwargs: Mapping[str, Any]) -> OutputActivation | None:
    """What a model within the graph ends in, if it returns one tensor and is called on nothing but its inputs."""
    if len(kwargs) or _is_hooked(model):
        return None
    described = model.describe_outputs()
    return OutputActivation(described[0].activation, within=True) if described and described[0].activation else None


def _is_hooked(module: nn.Module) -> bool:
    """Whether a call of the module may return something else than its class says."""
    if not isinstance(module.__dict__.get("forward"), RecomputedForward):
        return is_hooked(module)
    return any(hook_tables(module)) or any(GLOBAL_HOOKS)


def _kind_of_callable(function: Any, ndim: int) -> str | None:
    """The kind of something that is called on one tensor and nothing else."""
    if isinstance(function, functools.partial):
        return _kind(function.func, ndim, (), function.keywords) if not function.args else None
    if not isinstance(function, nn.Module):
        return _kind(function, ndim, (), {})
    if _is_hooked(function):
        return None
    if type(function) is nn.Softmax:
        return _kind(F.softmax, ndim, (function.dim,), {})
    if type(function) is Softmax:
        return _kind(F.softmax, ndim, (function.axis,), {})
    return "sigmoid" if type(function) is nn.Sigmoid else None


def _kind(function: Callable[..., Any] | str, ndim: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The kind of a call of a function or method on a tensor and the given further arguments."""
    if function in _SIGMOID:
        return None if args or len(kwargs) else "sigmoid"
    if function not in _SOFTMAX or kwargs.get("dtype") is not None or len(args) > 1:
        return None
    # Without an axis torch's own softmax goes by the number of axes.
    default = -1 if function is activations.softmax else None
    axis = args[0] if args else kwargs.get("dim", kwargs.get("axis", default))
    return "softmax" if axis in (-1, ndim - 1) else None
