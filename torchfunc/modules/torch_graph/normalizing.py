"""Normalizations and random layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.normalization.affine import check_axes
from torchfunc.layers.normalization.batch import BatchNormalization
from torchfunc.layers.normalization.by_sample import (
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from torchfunc.layers.regularization import (
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from torchfunc.modules.plain import dropout, normalization
from torchfunc.modules.torch_graph.builder import Call, TorchGraph

__all__ = ["CONVERTERS"]

_BATCH_NORMS: Any = (normalization.BatchNorm1d, normalization.BatchNorm2d, normalization.BatchNorm3d)


def _batch_norm(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, rank = call.layer, len(call.shape)
    axis = layer.axis % rank
    size, clipping = layer.running_mean.shape[0], layer.renorm_clipping or {}
    affine = {"weight": layer.weight is not None, "bias": layer.bias is not None, "frozen": not layer.trainable}
    given = {name: value for name, value in affine.items() if value != (name != "frozen")}

    def make() -> nn.Module:
        if layer.renorm:
            bounds: Any = tuple(clipping.get(key) for key in ("rmin", "rmax", "dmax"))
            shares = (round(1 - layer.momentum, 12), round(1 - layer.renorm_momentum, 12))
            return normalization.BatchRenorm(size, layer.epsilon, *shares, bounds, **given)
        kind = _BATCH_NORMS[min(max(rank - 3, 0), 2)]
        module: nn.Module = kind(size, layer.epsilon, round(1 - layer.momentum, 12), **given)
        return module

    path = graph.place(call.path, layer, make)
    value = graph.cast(call.inputs, call.dtype, layer.dtype) if not call.dtype.is_floating_point else call.inputs
    mask = call.kwargs.get("mask")
    masks = {} if mask is None else {"mask": mask}
    if axis == 1:
        return graph.module(path, value, name=call.name, **masks)
    if axis == rank - 1:
        return graph.last(graph.module(path, graph.first(value, rank - 2), name=call.name, **masks), rank - 2)
    value = graph.module(path, graph.function(torch.movedim, value, axis, 1), name=call.name, **masks)
    return graph.function(torch.movedim, value, 1, axis)


def _in_float(graph: TorchGraph, call: Call, apply: Callable[[Any], Any]) -> Any:
    """`apply` in the precision that both the input and the layer have."""
    layer = call.layer
    inner, outer = torch.promote_types(call.dtype, layer.dtype), promote_to_float(call.dtype, layer.dtype)
    return graph.cast(apply(graph.cast(call.inputs, call.dtype, inner)), inner, outer)


def _layer_norm(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, rank = call.layer, len(call.shape)
    axes = check_axes(layer.axis, call.shape)
    sizes = tuple(call.shape[axis] for axis in axes)
    others = tuple(axis for axis in range(rank) if axis not in axes)
    order = (*others, *axes)

    def make() -> nn.Module:
        if isinstance(layer, RMSNormalization):
            return nn.RMSNorm(sizes, layer.epsilon)
        if layer.rms_scaling or (layer.weight is None and layer.bias is not None):
            names = ("weight", "bias")
            return nn.ParameterDict({name: getattr(layer, name) for name in names if getattr(layer, name) is not None})
        return nn.LayerNorm(sizes, layer.epsilon, layer.weight is not None, layer.bias is not None)

    path = graph.place(call.path, layer, make)

    def apply(value: Any) -> Any:
        moved = order != tuple(range(rank))
        value = graph.method("permute", value, *order) if moved else value
        if getattr(layer, "rms_scaling", False):
            last = tuple(range(-len(axes), 0))
            variance = graph.method("var", value, last, correction=0, keepdim=True)
            scale = graph.function(torch.rsqrt, graph.function(torch.add, variance, layer.epsilon))
            value = graph.function(torch.mul, value, scale)
            value = graph.function(torch.mul, value, graph.attribute(f"{path}.weight"), name=call.name)
        elif getattr(layer, "bias", None) is not None and layer.weight is None:
            bias = graph.attribute(f"{path}.bias")
            value = graph.function(F.layer_norm, value, sizes, None, bias, layer.epsilon, name=call.name)
        else:
            value = graph.module(path, value, name=call.name)
        return graph.method("permute", value, *(order.index(axis) for axis in range(rank))) if moved else value

    return _in_float(graph, call, apply)


def _group_norm(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, rank = call.layer, len(call.shape)
    channels = call.shape[layer.axis]
    plain = (layer.weight is None) == (layer.bias is None)

    def make() -> nn.Module:
        if plain:
            return nn.GroupNorm(layer.groups, channels, layer.epsilon, layer.weight is not None)
        names = ("weight", "bias")
        return nn.ParameterDict({name: getattr(layer, name) for name in names if getattr(layer, name) is not None})

    path = graph.place(call.path, layer, make)

    def normalize(value: Any) -> Any:
        if plain:
            return graph.module(path, value, name=call.name)
        weight = None if layer.weight is None else graph.attribute(f"{path}.weight")
        bias = None if layer.bias is None else graph.attribute(f"{path}.bias")
        if weight is None:
            # (The backward pass of torch's kernel fails with a bias alone.)
            weight = graph.function(torch.ones_like, bias)
        return graph.function(F.group_norm, value, layer.groups, weight, bias, layer.epsilon, name=call.name)

    def apply(value: Any) -> Any:
        axis = layer.axis % rank
        if axis == 1:
            return normalize(value)
        if axis == rank - 1:
            return graph.last(normalize(graph.method("contiguous", graph.first(value, rank - 2))), rank - 2)
        return graph.function(torch.movedim, normalize(graph.function(torch.movedim, value, axis, 1)), 1, axis)

    return _in_float(graph, call, apply)


def _unit_norm(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    axis = call.layer.axis
    value = graph.cast(call.inputs, call.dtype, promote_to_float(call.dtype, call.layer.dtype))
    axes = axis if isinstance(axis, int) else tuple(axis)
    if isinstance(axes, int):
        return graph.function(F.normalize, value, dim=axes, name=call.name)
    length = graph.function(torch.linalg.vector_norm, value, dim=axes, keepdim=True)
    return graph.function(torch.div, value, graph.method("clamp_min", length, 1e-12), name=call.name)


def _dropout(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    alpha = isinstance(layer, AlphaDropout)

    def make() -> nn.Module:
        if layer.noise_shape is None and layer.seed is None and layer.rate < 1:
            return nn.AlphaDropout(layer.rate) if alpha else nn.Dropout(layer.rate)
        return dropout.BroadcastDropout(layer.rate, layer.noise_shape, layer.seed, **({"alpha": True} if alpha else {}))

    path = graph.place(call.path, layer, make)
    if layer.noise_shape is None:
        return graph.elementwise(lambda value: graph.module(path, value, name=call.name), call.inputs)
    return graph.module(path, call.inputs, name=call.name)


def _spatial_dropout(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, rank = call.layer, len(call.shape) - 2
    last = layer.data_format == "channels_last"

    def make() -> nn.Module:
        if layer.seed is None:
            kinds: Any = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
            module: nn.Module = kinds[rank - 1](layer.rate)
            return module
        return dropout.BroadcastDropout(layer.rate, (None, None, *[1] * rank), layer.seed)

    path = graph.place(call.path, layer, make)
    value = graph.first(call.inputs, rank) if last else call.inputs
    value = graph.module(path, value, name=call.name)
    return graph.last(value, rank) if last else value


def _noise(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer

    def make() -> nn.Module:
        if isinstance(layer, GaussianNoise):
            return dropout.GaussianNoise(layer.stddev, layer.seed)
        return dropout.GaussianDropout(layer.rate, layer.seed)

    path = graph.place(call.path, layer, make)
    return graph.elementwise(lambda value: graph.module(path, value, name=call.name), call.inputs)


CONVERTERS: dict[type, Callable[..., Any]] = {
    AlphaDropout: _dropout,
    BatchNormalization: _batch_norm,
    Dropout: _dropout,
    GaussianDropout: _noise,
    GaussianNoise: _noise,
    GroupNormalization: _group_norm,
    LayerNormalization: _layer_norm,
    RMSNormalization: _layer_norm,
    SpatialDropout1D: _spatial_dropout,
    SpatialDropout2D: _spatial_dropout,
    SpatialDropout3D: _spatial_dropout,
    UnitNormalization: _unit_norm,
}
