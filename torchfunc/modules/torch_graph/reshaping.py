"""Layers that merge tensors or change their shape, and those that prepare numbers and categories."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from torchfunc.config import epsilon
from torchfunc.layers.merging import Add, Average, Concatenate, Dot, Maximum, Minimum, Multiply, Subtract
from torchfunc.layers.preprocessing.categories import CategoryEncoding, Discretization
from torchfunc.layers.preprocessing.scaling import Normalization, Rescaling
from torchfunc.layers.reshaping import Flatten, Permute, RepeatVector, Reshape
from torchfunc.modules.plain import features, merging
from torchfunc.modules.torch_graph.builder import Call, TorchGraph

__all__ = ["CONVERTERS"]

_OPERATORS: dict[type, Callable[..., Any]] = {
    Add: torch.add,
    Average: torch.add,
    Maximum: torch.maximum,
    Minimum: torch.minimum,
    Multiply: torch.mul,
    Subtract: torch.sub,
}


def _merge(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, given = call.layer, call.symbolic[0]
    rank = max(len(each.shape) for each in given)
    missing = [rank - len(each.shape) for each in given]
    values = [
        value if count == 0 else graph.index(value, (slice(None), *[None] * count))
        for value, count in zip(call.inputs, missing, strict=True)
    ]
    masks = call.kwargs.get("mask")
    if masks is not None and isinstance(layer, (Multiply, Maximum, Minimum)):
        pairs = zip(masks, missing, strict=True)
        steps = [None if mask is None or count else graph.method("unsqueeze", mask, -1) for mask, count in pairs]
        if any(mask is not None for mask in steps):
            if isinstance(layer, Multiply):
                return graph.function(merging.masked_multiply, values, steps, name=call.name)
            return graph.function(merging.extremum, values, steps, isinstance(layer, Maximum), name=call.name)
    function = _OPERATORS[type(layer)]

    def apply(*parts: Any) -> fx.Node:
        found = functools.reduce(lambda a, b: graph.function(function, a, b, name=call.name), parts)
        return graph.function(torch.div, found, len(parts), name=call.name) if isinstance(layer, Average) else found

    return values[0] if len(values) == 1 else graph.elementwise(apply, *values)


def _concatenate(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    return graph.function(torch.cat, list(call.inputs), call.layer.axis, name=call.name)


def _dot(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    axes, ranks = call.layer.axes, [len(each.shape) for each in call.symbolic[0]]
    pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
    a, b = (axis % rank for axis, rank in zip(pair, ranks, strict=True))
    values = list(call.inputs)
    if call.layer.normalize:
        values = [
            graph.function(F.normalize, x, dim=axis, eps=epsilon()) for x, axis in zip(values, (a, b), strict=True)
        ]
    letters = iter("cdefghijklmnopqrstuvwxyz")
    terms = [
        "".join("b" if n == 0 else "a" if n == axis else next(letters) for n in range(rank))
        for axis, rank in zip((a, b), ranks, strict=True)
    ]
    rest = "".join(letter for term in terms for letter in term if letter not in "ab")
    value = graph.function(torch.einsum, f"{terms[0]},{terms[1]}->b{rest}", *values, name=call.name)
    return value if rest else graph.method("unsqueeze", value, 1)


def _flatten(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    value, rank = call.inputs, len(call.shape)
    if rank == 1:
        return graph.method("unsqueeze", value, 1, name=call.name)
    if call.layer.data_format == "channels_first" and rank > 2:
        value = graph.function(torch.movedim, value, 1, -1)
    return graph.method("flatten", value, 1, name=call.name)


def _reshape(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    target, sizes = call.layer.target_shape, call.shape[1:]
    if -1 in target and None not in sizes:
        known = math.prod(size for size in target if size != -1)
        left = math.prod(sizes) // known if known else 0  # type: ignore[arg-type]
        target = tuple(left if size == -1 else size for size in target)
    batch = graph.method("size", call.inputs, 0)
    return graph.method("reshape", call.inputs, batch, *target, name=call.name)


def _permute(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    return graph.method("permute", call.inputs, 0, *call.layer.dims, name=call.name)


def _repeat(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    return graph.method("repeat", graph.method("unsqueeze", call.inputs, 1), 1, call.layer.n, 1, name=call.name)


def _rescaling(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    value = graph.cast(call.inputs, call.dtype, layer.dtype)
    if np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0:
        value = graph.function(operator.mul, value, float(layer.scale), name=call.name)
        return graph.function(operator.add, value, float(layer.offset)) if layer.offset else value
    buffers = layer._buffers

    def values(name: str) -> Any:
        return buffers[f"_{name}"].tolist() if f"_{name}" in buffers else float(getattr(layer, name))

    def make() -> Any:
        with torch.device("cpu"):
            return features.Scale(values("scale"), values("offset"), layer.dtype)

    return graph.module(graph.place(call.path, layer, make), value, name=call.name)


def _normalization(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, rank = call.layer, len(call.shape)
    axes = sorted({axis % rank for axis in layer.axis})
    broadcast: Any = tuple(call.shape[axis] if axis in axes else 1 for axis in range(min(axes, default=rank), rank))
    fixed = layer.input_mean is not None

    def make() -> Any:
        given: dict[str, Any] = {"fixed": (layer.mean.tolist(), layer.variance.tolist())} if fixed else {}
        with torch.device("cpu"):
            shape: Any = tuple(layer.mean.shape)
            return features.Normalize(shape, broadcast, layer.invert, dtype=layer.dtype, **given)

    path = graph.place(call.path, layer, make)
    return graph.module(path, call.inputs, name=call.name)


def _encoding(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    weights = call.args[1] if len(call.args) > 1 else call.kwargs.get("count_weights")
    given = {} if weights is None else {"weights": weights}
    arguments = (layer.num_tokens, layer.output_mode, layer.dtype)
    return graph.function(features.encode, call.inputs, *arguments, name=call.name, **given)


def _discretization(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    if layer.bin_boundaries is None:
        raise ValueError(f"{layer.describe()} has no boundaries yet: call adapt(data) first.")

    def make() -> Any:
        with torch.device("cpu"):
            return features.Bucketize(layer.bin_boundaries, layer.dtype)

    value = graph.module(graph.place(call.path, layer, make), call.inputs, name=call.name)
    if layer.output_mode == "int":
        return graph.method("to", value, torch.int32)
    return graph.function(features.encode, value, len(layer.bin_boundaries) + 1, layer.output_mode, layer.dtype)


CONVERTERS: dict[type, Callable[..., Any]] = {
    **dict.fromkeys(_OPERATORS, _merge),
    CategoryEncoding: _encoding,
    Concatenate: _concatenate,
    Discretization: _discretization,
    Dot: _dot,
    Flatten: _flatten,
    Normalization: _normalization,
    Permute: _permute,
    RepeatVector: _repeat,
    Rescaling: _rescaling,
    Reshape: _reshape,
}
