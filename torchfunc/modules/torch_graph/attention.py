"""Attention layers, and layers around other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from torchfunc.graph import record_input
from torchfunc.layers.attention.axes import AttentionAxes
from torchfunc.layers.attention.multi_head import GroupedQueryAttention, MultiHeadAttention
from torchfunc.layers.attention.single_head import AdditiveAttention, Attention
from torchfunc.layers.base.weighted_layer import kernel_of
from torchfunc.layers.core import Embedding
from torchfunc.layers.normalization.spectral import SpectralNormalization
from torchfunc.layers.wrappers import TimeDistributed
from torchfunc.modules.plain import attention
from torchfunc.modules.plain.normalization import SpectralNorm
from torchfunc.modules.torch_graph.builder import Call, TorchGraph, share_weights
from torchfunc.structures import map_structure

__all__ = ["CONVERTERS"]

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "gate_proj", "out_proj")


def _multi_head(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    grouped = isinstance(layer, GroupedQueryAttention)
    heads, groups = (
        (layer.num_query_heads, layer.num_key_value_heads) if grouped else (layer.num_heads, layer.num_heads)
    )
    head, value_head = (layer.head_dim, layer.head_dim) if grouped else (layer.key_dim, layer.value_dim)
    rank = len(call.shape)
    output_shape = (call.shape[-1],) if grouped else tuple(layer.get_config()["output_shape"] or (call.shape[-1],))

    def make() -> nn.Module:
        features = tuple(getattr(layer, name).weight.shape[1] for name in _PROJECTIONS[:3])
        over = AttentionAxes.of(rank, layer.attention_axes).over
        given = {
            "over": over,
            "rank": rank,
            "bias": layer.use_bias,
            "gate": layer.use_gate,
            "dropout": layer.dropout,
            "sliding_window": layer.sliding_window,
            "flash": layer.flash_attention,
            "seed": layer.seed,
        }
        module = attention.MultiHeadAttention(features, output_shape, heads, groups, head, value_head, **given)
        for name in _PROJECTIONS[: 5 if layer.use_gate else 3] + _PROJECTIONS[4:]:
            share_weights(getattr(module, name), getattr(layer, name))
        return module

    path = graph.place(call.path, layer, make)
    return graph.module(path, *call.args, name=call.name, **call.kwargs)


def _attention(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer

    def make() -> nn.Module:
        scores = "additive" if isinstance(layer, AdditiveAttention) else layer.score_mode
        scale = None if layer.scale is None else tuple(layer.scale.shape)
        return attention.Attention(scores, scale, layer.dropout, layer.seed)

    path = graph.place(call.path, layer, make)
    return graph.module(path, *call.args, name=call.name, **call.kwargs)


def _time_distributed(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    steps, *rest = call.shape[1:]
    sizes = (graph.method("size", call.inputs, 0), steps or graph.method("size", call.inputs, 1))
    stand_in = record_input("step", (None, *rest), call.dtype).outputs
    given = {name: graph.method("flatten", mask, 0, 1) for name, mask in call.kwargs.items() if mask is not None}
    flat = graph.method("flatten", call.inputs, 0, 1)
    inner = Call(call.layer.layer, f"{call.path}.layer", call.name, (flat,), given, (stand_in,))
    return map_structure(lambda value: graph.method("unflatten", value, 0, sizes), convert(graph, inner))


def _spectral(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, inner = call.layer, call.layer.layer
    path = f"{call.path}.layer"
    (name,) = kernel_of(inner).names
    size = layer.vector_u.shape[1]
    kernel = getattr(inner, name)
    # Of torch's kernel the axis that Keras has last.
    axis = 1 if isinstance(inner, Embedding) or (kernel.ndim > 2 and kernel.shape[1] == size != kernel.shape[0]) else 0
    graph.redirected[path] = call.path
    result = convert(graph, Call(inner, path, call.name, call.args, {}, call.symbolic))
    plain = graph.root.get_submodule(path)
    if isinstance(plain, (nn.ParameterDict, SpectralNorm)) or kernel.shape[axis] != size:
        return NotImplemented
    iterations = layer.power_iterations
    graph.place(call.path, layer, lambda: SpectralNorm(plain, name, axis, size, iterations))
    return result


CONVERTERS: dict[type, Callable[..., Any]] = {
    AdditiveAttention: _attention,
    Attention: _attention,
    GroupedQueryAttention: _multi_head,
    MultiHeadAttention: _multi_head,
    SpectralNormalization: _spectral,
    TimeDistributed: _time_distributed,
}
