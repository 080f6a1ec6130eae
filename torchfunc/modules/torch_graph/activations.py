"""Activations as calls of torch's functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchfunc import activations
from torchfunc.layers import Layer
from torchfunc.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from torchfunc.modules.torch_graph.builder import Call, TorchGraph

__all__ = ["CONVERTERS", "activated", "is_elementwise", "torch_function"]

# Those of which torch has the same under another name or in another place, with the same defaults.
_SAME: dict[Any, Callable[..., Any]] = {
    activations.celu: torch.celu,
    activations.elu: F.elu,
    activations.exponential: torch.exp,
    activations.gelu: F.gelu,
    activations.glu: F.glu,
    activations.hard_shrink: F.hardshrink,
    activations.hard_sigmoid: F.hardsigmoid,
    activations.hard_silu: F.hardswish,
    activations.hard_tanh: F.hardtanh,
    activations.log_sigmoid: F.logsigmoid,
    activations.mish: F.mish,
    activations.relu: torch.relu,
    activations.relu6: F.relu6,
    activations.selu: torch.selu,
    activations.sigmoid: torch.sigmoid,
    activations.silu: F.silu,
    activations.soft_shrink: F.softshrink,
    activations.softplus: F.softplus,
    activations.softsign: F.softsign,
    activations.tanh: torch.tanh,
    activations.tanh_shrink: F.tanhshrink,
}
_ALONG_THE_LAST_AXIS = (activations.softmax, activations.log_softmax, activations.sparsemax, activations.glu)


def torch_function(activation: Callable[..., Any]) -> Callable[..., Any]:
    """torch's own function for an activation, or the activation itself."""
    return _SAME.get(activation, activation)


def is_elementwise(activation: Any) -> bool:
    """Whether an activation is known not to look at axes."""
    function = activation.func if isinstance(activation, functools.partial) else activation
    known = (*_SAME, activations.linear, activations.leaky_relu, activations.squareplus, activations.sparse_plus)
    return function in known and function not in _ALONG_THE_LAST_AXIS


def activated(graph: TorchGraph, activation: Any, value: fx.Node, call: Call, convert: Callable[..., Any]) -> fx.Node:
    """The call of a layer's activation.

    Args:
        graph: gets the call.
        activation: a function or module.
        value: its input.
        call: that of the layer that ends in it.
        convert: writes the call of another layer.
    """
    name = f"{call.name}_{getattr(activation, '__name__', 'activation')}"
    if activation is None or activation is activations.linear:
        return value
    if activation in (activations.softmax, activations.log_softmax):
        function = torch.softmax if activation is activations.softmax else torch.log_softmax
        return graph.function(function, value, -1, name=name)
    if activation is activations.leaky_relu:
        return graph.function(torch.nn.functional.leaky_relu, value, 0.2, name=name)
    if isinstance(activation, functools.partial):
        return graph.function(
            torch_function(activation.func), value, *activation.args, name=name, **activation.keywords
        )
    if isinstance(activation, Layer):
        inner = Call(activation, f"{call.path}.activation", name, (value,), {}, call.symbolic)
        result: fx.Node = convert(graph, inner)
        return result
    if isinstance(activation, nn.Module):
        graph.register(f"{call.path}.activation", activation)
        return graph.module(f"{call.path}.activation", value, name=name)
    return graph.function(torch_function(activation), value, name=name)


def _activation(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    activation = call.layer.activation

    def apply(value: fx.Node) -> fx.Node:
        return activated(graph, activation, value, call, convert)

    return graph.elementwise(apply, call.inputs) if is_elementwise(activation) else apply(call.inputs)


def _relu(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    slope, largest, threshold = layer.negative_slope, layer.max_value, layer.threshold

    def apply(value: fx.Node) -> fx.Node:
        if (slope, largest, threshold) == (0.0, None, 0.0):
            return graph.function(torch.relu, value, name=call.name)
        if largest is None and threshold == 0.0:
            return graph.function(F.leaky_relu, value, slope, name=call.name)
        return graph.function(activations.relu, value, slope, largest, threshold, name=call.name)

    return graph.elementwise(apply, call.inputs)


def _leaky_relu(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    slope = call.layer.negative_slope
    return graph.elementwise(lambda value: graph.function(F.leaky_relu, value, slope, name=call.name), call.inputs)


def _elu(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    alpha = call.layer.alpha
    return graph.elementwise(lambda value: graph.function(F.elu, value, alpha, name=call.name), call.inputs)


def _prelu(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    path = graph.parameters(call)
    slope = graph.function(torch.mul, graph.attribute(f"{path}.weight"), call.inputs)
    positive = graph.function(torch.gt, call.inputs, 0)
    return graph.function(torch.where, positive, call.inputs, slope, name=call.name)


def _softmax(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    axis, value, mask = call.layer.axis, call.inputs, call.kwargs.get("mask")
    axis = axis if isinstance(axis, int) else axis[0] if len(axis) == 1 else tuple(axis)
    if mask is not None:
        mask = graph.method("to", mask, torch.bool)
        value = graph.function(torch.where, mask, value, -3e4 if call.dtype == torch.float16 else -1e9)
    if isinstance(axis, int):
        output = graph.function(torch.softmax, value, axis, name=call.name)
    else:
        output = graph.function(activations.softmax, value, axis, name=call.name)
    return output if mask is None else graph.function(torch.where, mask, output, 0.0)


CONVERTERS: dict[type, Callable[..., Any]] = {
    Activation: _activation,
    ELU: _elu,
    LeakyReLU: _leaky_relu,
    PReLU: _prelu,
    ReLU: _relu,
    Softmax: _softmax,
}
