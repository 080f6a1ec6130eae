"""Layers over positions: convolutions, pooling, padding, cropping, up-sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchfunc import layers
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.spatial import same_padding
from torchfunc.layers.convolution.standard import Convolution
from torchfunc.layers.convolution.transpose import crop
from torchfunc.layers.preprocessing.image_sizes import CenterCrop, Resizing
from torchfunc.modules.plain.images import center_crop, resize_images
from torchfunc.modules.plain.windows import SeparableConv1d, SeparableConv2d, pad_same, pool_same, upsample
from torchfunc.modules.torch_graph.activations import activated, is_elementwise
from torchfunc.modules.torch_graph.builder import Call, TorchGraph

__all__ = ["CONVERTERS"]

_CONVOLUTIONS: Sequence[type[nn.Module]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Sequence[type[nn.Module]] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAX_POOLS: Sequence[type[nn.Module]] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOLS: Sequence[type[nn.Module]] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_MAX: Sequence[type[nn.Module]] = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_ADAPTIVE_AVERAGE: Sequence[type[nn.Module]] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
# With fewer channels the gradient of a strided kernel of one position is computed wrongly: see `SlidingKernel`.
_FEW_CHANNELS = 16


def _channels_first(graph: TorchGraph, call: Call) -> fx.Node:
    last = call.layer.data_format == "channels_last"
    value: fx.Node = graph.first(call.inputs, call.layer.rank) if last else call.inputs
    return value


def _back(graph: TorchGraph, call: Call, value: fx.Node) -> fx.Node:
    return graph.last(value, call.layer.rank) if call.layer.data_format == "channels_last" else value


def _positions(call: Call) -> Sequence[int | None]:
    start = 1 if call.layer.data_format == "channels_last" else 2
    return call.shape[start : start + call.layer.rank]


def _extent(layer: Any) -> tuple[int, ...]:
    return tuple((size - 1) * step + 1 for size, step in zip(layer.kernel_size, layer.dilation_rate, strict=True))


def _padded(graph: TorchGraph, call: Call, value: fx.Node) -> tuple[fx.Node, Any]:
    """The input, padded if torch's module cannot do it, and the padding that is left to the module."""
    layer, extent = call.layer, _extent(call.layer)
    if layer.padding == "valid" or max(extent) == 1:
        return value, (0,) * layer.rank
    if layer.padding == "causal":
        return graph.function(F.pad, value, (extent[0] - 1, 0)), (0,)
    if max(layer.strides) == 1 and all(size % 2 for size in extent):
        return value, tuple(size // 2 for size in extent)
    sizes = _positions(call)
    if None in sizes:
        return graph.function(pad_same, value, extent, layer.strides), (0,) * layer.rank
    pairs = list(map(same_padding, sizes, extent, layer.strides))  # type: ignore[arg-type]
    if all(before == after for before, after in pairs):
        return value, tuple(before for before, _ in pairs)
    return graph.function(F.pad, value, tuple(count for pair in reversed(pairs) for count in pair)), (0,) * layer.rank


def _finished(graph: TorchGraph, call: Call, value: fx.Node, convert: Callable[..., Any]) -> fx.Node:
    """The activation and the view with the channels where the layer has them."""
    activation = call.layer.activation
    if is_elementwise(activation):
        return _back(graph, call, activated(graph, activation, value, call, convert))
    return activated(graph, activation, _back(graph, call, value), call, convert)


def _convolution(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, weight = call.layer, call.layer.weight
    value, padding = _padded(graph, call, _channels_first(graph, call))
    groups = layer.groups if isinstance(layer, Convolution) else weight.shape[0] // layer.depth_multiplier
    strides = layer.strides
    if max(layer.kernel_size) == 1 and max(strides) > 1 and weight.shape[1] < _FEW_CHANNELS:
        window = (..., *(slice(None, None, stride) for stride in strides))
        value = graph.index(value, window)
        strides = (1,) * layer.rank
    arguments = (weight.shape[1] * groups, weight.shape[0], tuple(layer.kernel_size), tuple(strides), padding)

    def make() -> nn.Module:
        kind: Any = _CONVOLUTIONS[layer.rank - 1]
        return kind(*arguments, tuple(layer.dilation_rate), groups, layer.use_bias)

    path = graph.place(call.path, layer, make)
    return _finished(graph, call, graph.module(path, value, name=call.name), convert)


def _separable(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    value, padding = _padded(graph, call, _channels_first(graph, call))
    channels = layer.depthwise_weight.shape[0] // layer.depth_multiplier

    def make() -> nn.Module:
        settings: Any = (layer.kernel_size, layer.strides, padding, layer.dilation_rate)
        kind: Any = SeparableConv2d
        if layer.rank == 1:
            kind, settings = SeparableConv1d, tuple(x if isinstance(x, str) else x[0] for x in settings)
        return kind(channels, layer.filters, *settings, layer.depth_multiplier, layer.use_bias)

    path = graph.place(call.path, layer, make)
    return _finished(graph, call, graph.module(path, value, name=call.name), convert)


def _transposed(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, weight = call.layer, call.layer.weight
    extras = layer.output_padding or (None,) * layer.rank
    axes = zip(_extent(layer), layer.strides, extras, strict=True)
    crops = [crop(extent, stride, extra, layer.padding == "same") for extent, stride, extra in axes]
    padding = tuple(before for before, _ in crops)
    extra = tuple(max(0, before - after) for before, after in crops)

    def make() -> nn.Module:
        kind: Any = _TRANSPOSED[layer.rank - 1]
        sizes = (weight.shape[0], weight.shape[1], layer.kernel_size, layer.strides, padding, extra)
        return kind(*sizes, 1, layer.use_bias, layer.dilation_rate)

    path = graph.place(call.path, layer, make)
    value = graph.module(path, _channels_first(graph, call), name=call.name)
    if any(after > before for before, after in crops):
        cuts = (slice(None, before - after) if after > before else slice(None) for before, after in crops)
        value = graph.index(value, (..., *cuts))
    return _finished(graph, call, value, convert)


def _pooling(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, value = call.layer, _channels_first(graph, call)
    average = "Average" in type(layer).__name__
    window, strides, rank = tuple(layer.pool_size), tuple(layer.strides), layer.rank
    sizes = _positions(call)
    pairs = None
    if layer.padding == "valid":
        pairs = [(0, 0)] * rank
    elif None not in sizes:
        pairs = list(map(same_padding, sizes, window, strides))  # type: ignore[arg-type]
    if pairs is None or any(before != after for before, after in pairs):
        return _back(graph, call, graph.function(pool_same, value, window, strides, average, name=call.name))
    padding = tuple(before for before, _ in pairs)

    def make() -> nn.Module:
        kind: Any = (_AVERAGE_POOLS if average else _MAX_POOLS)[rank - 1]
        return kind(window, strides, padding, **({"count_include_pad": False} if average else {}))

    path = graph.place(call.path, layer, make)
    return _back(graph, call, graph.module(path, value, name=call.name))


def _adaptive(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    kinds: Any = _ADAPTIVE_AVERAGE if "Average" in type(layer).__name__ else _ADAPTIVE_MAX
    size = layer.output_size if layer.rank > 1 else layer.output_size[0]
    path = graph.place(call.path, layer, lambda: kinds[layer.rank - 1](size))
    return _back(graph, call, graph.module(path, _channels_first(graph, call), name=call.name))


def _global(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, value, mask = call.layer, call.inputs, call.kwargs.get("mask")
    last = layer.data_format == "channels_last"
    axes = tuple(range(1 if last else 2, (1 if last else 2) + layer.rank))
    if "Max" in type(layer).__name__:
        return graph.method("amax", value, axes, layer.keepdims, name=call.name)
    dtype = promote_to_float(call.dtype, layer.dtype)
    value = value if dtype == call.dtype else graph.method("to", value, dtype)
    if mask is None:
        return graph.method("mean", value, axes, layer.keepdims, name=call.name)
    counted = graph.method("unsqueeze", graph.method("to", mask, torch.bool), -1 if last else 1)
    total = graph.method("sum", graph.function(torch.where, counted, value, 0), axes, layer.keepdims)
    count = graph.method("sum", graph.method("to", counted, dtype), axes, layer.keepdims)
    return graph.function(torch.div, total, count, name=call.name)


def _padding(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    pairs = [layer.padding] if layer.rank == 1 else layer.padding
    counts = tuple(count for pair in reversed(pairs) for count in pair)
    counts = (0, 0, *counts) if layer.data_format == "channels_last" else counts
    return graph.function(F.pad, call.inputs, counts, name=call.name)


def _cropping(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    pairs = [layer.cropping] if layer.rank == 1 else layer.cropping
    window = [slice(before or None, -after or None) for before, after in pairs]
    index = (slice(None), *window) if layer.data_format == "channels_last" else (..., *window)
    return graph.index(call.inputs, index, name=call.name)


def _upsampling(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, value = call.layer, _channels_first(graph, call)
    mode = getattr(layer, "interpolation", "nearest")
    if mode == "nearest":
        return _back(graph, call, graph.function(upsample, value, tuple(layer.size), name=call.name))
    scale = tuple(float(size) for size in layer.size)
    larger = graph.function(F.interpolate, value, scale_factor=scale, mode=mode, align_corners=False, name=call.name)
    return _back(graph, call, larger)


def _image_size(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, single = call.layer, len(call.shape) == 3
    value = graph.method("unsqueeze", call.inputs, 0) if single else call.inputs
    value = graph.first(value, 2) if layer.data_format == "channels_last" else value
    size = (layer.height, layer.width)
    if isinstance(layer, CenterCrop):
        value = value if call.dtype == layer.dtype else graph.method("to", value, layer.dtype)
        value = graph.function(center_crop, value, size, name=call.name)
    else:
        options = {"crop": True} if layer.crop_to_aspect_ratio else {}
        options |= {"fill_value": layer.fill_value} if layer.pad_to_aspect_ratio else {}
        options |= {"antialias": True} if layer.antialias else {}
        value = graph.function(resize_images, value, size, layer.interpolation, name=call.name, **options)
    value = _back(graph, call, value)
    return graph.method("squeeze", value, 0) if single else value


def _each(
    names: str, converter: Callable[..., Any], ranks: Sequence[int] = (1, 2, 3)
) -> dict[type, Callable[..., Any]]:
    return {getattr(layers, names.format(rank)): converter for rank in ranks}


CONVERTERS: dict[type, Callable[..., Any]] = {
    **_each("Conv{}D", _convolution),
    **_each("DepthwiseConv{}D", _convolution, (1, 2)),
    **_each("SeparableConv{}D", _separable, (1, 2)),
    **_each("Conv{}DTranspose", _transposed),
    **_each("MaxPooling{}D", _pooling),
    **_each("AveragePooling{}D", _pooling),
    **_each("AdaptiveMaxPooling{}D", _adaptive),
    **_each("AdaptiveAveragePooling{}D", _adaptive),
    **_each("GlobalMaxPooling{}D", _global),
    **_each("GlobalAveragePooling{}D", _global),
    **_each("ZeroPadding{}D", _padding),
    **_each("Cropping{}D", _cropping),
    **_each("UpSampling{}D", _upsampling),
    CenterCrop: _image_size,
    Resizing: _image_size,
}
