"""Dense, Embedding and their like, and layers around functions and modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from torchfunc.layers.core import Dense, Embedding, Identity, Lambda, TorchModule
from torchfunc.layers.einsum_dense import EinsumDense
from torchfunc.layers.masking import Masking
from torchfunc.layers.regularization import ActivityRegularization
from torchfunc.layers.reversible_embedding import ReversibleEmbedding
from torchfunc.modules.torch_graph.activations import activated
from torchfunc.modules.torch_graph.builder import Call, TorchGraph

__all__ = ["CONVERTERS"]


def _dense(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    units, features = call.layer.weight.shape
    path = graph.place(call.path, call.layer, lambda: nn.Linear(features, units, call.layer.use_bias))
    value = graph.module(path, graph.cast(call.inputs, call.dtype, call.layer.dtype), name=call.name)
    return activated(graph, call.layer.activation, value, call, convert)


def _einsum(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    path = graph.parameters(call)
    weight = graph.attribute(f"{path}.weight")
    value = graph.function(torch.einsum, call.layer.equation, call.inputs, weight, name=call.name)
    if call.layer.bias is not None:
        value = graph.function(torch.add, value, graph.attribute(f"{path}.bias"), name=f"{call.name}_biased")
    return activated(graph, call.layer.activation, value, call, convert)


def _embedding(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    count, length = call.layer.weight.shape
    path = graph.place(call.path, call.layer, lambda: nn.Embedding(count, length, sparse=call.layer.sparse_gradient))
    return graph.module(path, _integers(graph, call), name=call.name)


def _integers(graph: TorchGraph, call: Call) -> Any:
    return call.inputs if call.dtype in (torch.int64, torch.int32) else graph.method("to", call.inputs, torch.int64)


def _reversible(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, path = call.layer, graph.parameters(call)
    weight = graph.attribute(f"{path}.weight")
    if not (call.args[1] if len(call.args) > 1 else call.kwargs.get("reverse")):
        return graph.function(F.embedding, _integers(graph, call), weight, name=call.name)
    value, dtype, cap = call.inputs, layer.reverse_dtype, layer.logit_soft_cap
    kernel = weight if layer.tie_weights else graph.method("t", graph.attribute(f"{path}.reverse_embeddings"))
    if dtype is not None:
        value, kernel = graph.method("to", value, dtype), graph.method("to", kernel, dtype)
    scores = graph.function(F.linear, value, kernel, name=call.name)
    if cap is None:
        return scores
    return graph.function(torch.mul, graph.function(torch.tanh, graph.function(torch.div, scores, cap)), cap)


def _identity(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    return call.inputs


def _lambda(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    function = call.layer.function
    if getattr(function, "__name__", "<lambda>") == "<lambda>" or getattr(function, "__closure__", None):
        # It is nothing that could be named.
        return NotImplemented
    given = {name: value for name, value in call.kwargs.items() if name == "mask"}
    return graph.function(call.layer.function, *call.args, name=call.name, **call.layer.arguments, **given)


def _module(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    path = f"{call.path}.module"
    graph.register(path, call.layer.module)
    return graph.module(path, *call.args, name=call.name, **call.kwargs)


def _masking(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    counted = graph.function(torch.ne, call.inputs, call.layer.mask_value)
    counted = graph.method("any", counted, -1, keepdim=True)
    return graph.function(torch.where, counted, call.inputs, 0, name=call.name)


CONVERTERS: dict[type, Callable[..., Any]] = {
    ActivityRegularization: _identity,
    Dense: _dense,
    EinsumDense: _einsum,
    Embedding: _embedding,
    Identity: _identity,
    Lambda: _lambda,
    Masking: _masking,
    ReversibleEmbedding: _reversible,
    TorchModule: _module,
}
