"""DepthwiseConv1D/2D and SeparableConv1D/2D: convolutions of each channel on its own."""

from __future__ import annotations

import functools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import positive
from torchfunc.layers.base.spatial import Windows
from torchfunc.layers.base.weights import CONVOLUTION, Layout
from torchfunc.layers.convolution.base import SlidingKernel

__all__ = [
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConvolution",
    "SeparableConv1D",
    "SeparableConv2D",
    "SeparableConvolution",
    "SeparableConvolution1D",
    "SeparableConvolution2D",
]


def _depthwise_to_torch(tensor: Tensor) -> tuple[Tensor, ...]:
    return CONVOLUTION.to_torch(tensor.reshape(*tensor.shape[:-2], 1, -1))


def _depthwise_to_keras(tensor: Tensor, multiplier: int) -> Tensor:
    flat = CONVOLUTION.to_keras(tensor)
    return flat.reshape(*flat.shape[:-2], -1, multiplier)


class _Depthwise(SlidingKernel):
    """A separate convolution of each channel, `depth_multiplier` times.

    Torch stores its kernel as (channels * depth_multiplier, 1, *kernel_size), Keras as
    (*kernel_size, channels, depth_multiplier).
    """

    depth_multiplier: int

    def _make_depthwise(self, channels: int, name: str) -> None:
        layout = Layout(_depthwise_to_torch, functools.partial(_depthwise_to_keras, multiplier=self.depth_multiplier))
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        keras_name = "kernel" if name == "weight" else "depthwise_kernel"
        self._make_weight("depthwise", shape, name, layout, keras_name=keras_name)

    def get_config(self) -> Config:
        return {**super().get_config(), "depth_multiplier": self.depth_multiplier}


class DepthwiseConvolution(_Depthwise):
    """A separate convolution of each channel.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, channels * depth_multiplier)`; with
    channels_first the channels come before the positions. New positions: `ceil(n / stride)` with padding "same", else
    `(n - (kernel_size - 1) * dilation_rate - 1) // stride + 1`.
    Parameters: `weight` (channels * depth_multiplier, 1, *kernel_size), `bias` (channels * depth_multiplier,), as in
    `torch.nn.Conv2d` with `groups=channels`.

    Args:
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis. Strides and dilation cannot both
            be above 1.
        padding: "valid" (none) or "same" (zeros on both sides; an odd one goes to the end).
        depth_multiplier: the number of output channels for each input channel.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        activation, use_bias: see `KernelLayer`.
        depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer, depthwise_constraint,
        bias_constraint: of the weights, see `WeightedLayer`.
        activity_regularizer: a penalty on the output.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "depthwise": (depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        windows = Windows(kernel_size, strides, padding, data_format, dilation_rate)
        super().__init__(windows, activation, use_bias, weights, activity_regularizer=activity_regularizer, **kwargs)
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier", type(self).__name__)

    def _make_weights(self, channels: int) -> None:
        self._make_depthwise(channels, "weight")
        self._make_bias((channels * self.depth_multiplier,))

    def _channels_out(self, channels: int | None) -> int | None:
        return None if channels is None else channels * self.depth_multiplier

    def _convolve(self, inputs: Tensor) -> Tensor:
        return self._slide(inputs, self.weight, self.bias, inputs.shape[1])


class SeparableConvolution(_Depthwise):
    """A separate convolution of each channel, then a mix of the channels at each position.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, filters)`; with channels_first the channels come
    before the positions. New positions: `ceil(n / stride)` with padding "same", else
    `(n - (kernel_size - 1) * dilation_rate - 1) // stride + 1`.
    Parameters: `depthwise_weight` (channels * depth_multiplier, 1, *kernel_size), `pointwise_weight`
    (filters, channels * depth_multiplier, 1, ...), `bias` (filters,), as in two `torch.nn.Conv2d`.

    Args:
        filters: the number of output channels.
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis. Strides and dilation cannot both
            be above 1.
        padding: "valid" (none) or "same" (zeros on both sides; an odd one goes to the end).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        depth_multiplier: how many channels the first step makes of each input channel.
        activation, use_bias: see `KernelLayer`.
        depthwise_initializer, pointwise_initializer, bias_initializer, depthwise_regularizer, pointwise_regularizer,
        bias_regularizer, depthwise_constraint, pointwise_constraint, bias_constraint: of the weights, see
            `WeightedLayer`.
        activity_regularizer: a penalty on the output.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range.
    """

    _first_weight = "depthwise_weight"
    depthwise_weight: nn.Parameter
    pointwise_weight: nn.Parameter

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        depth_multiplier: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        pointwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        pointwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        pointwise_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "depthwise": (depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            "pointwise": (pointwise_initializer, pointwise_regularizer, pointwise_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        windows = Windows(kernel_size, strides, padding, data_format, dilation_rate)
        super().__init__(windows, activation, use_bias, weights, activity_regularizer=activity_regularizer, **kwargs)
        self.filters = positive(filters, "filters", type(self).__name__)
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier", type(self).__name__)

    def _make_weights(self, channels: int) -> None:
        self._make_depthwise(channels, "depthwise_weight")
        shape = (*(1,) * self.rank, channels * self.depth_multiplier, self.filters)
        self._make_weight("pointwise", shape, "pointwise_weight", CONVOLUTION, keras_name="pointwise_kernel")
        self._make_bias((self.filters,))

    def _channels_out(self, channels: int | None) -> int:
        return self.filters

    def _convolve(self, inputs: Tensor) -> Tensor:
        hidden = self._slide(inputs, self.depthwise_weight, None, inputs.shape[1])
        return self._kernel(hidden, self.pointwise_weight, self.bias)

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters}


class DepthwiseConv1D(DepthwiseConvolution):
    """Over steps: `(batch, steps, channels)` -> `(batch, new steps, channels * depth_multiplier)`.

    See `DepthwiseConvolution`.

    >>> layers.DepthwiseConv1D(3, depth_multiplier=2)(Input((10, 4))).shape
    (None, 8, 8)
    """

    rank = 1
    _kernel = staticmethod(F.conv1d)


class DepthwiseConv2D(DepthwiseConvolution):
    """Over images: `(batch, height, width, channels)` -> `(batch, new height, new width, channels * depth_multiplier)`.

    See `DepthwiseConvolution`.

    >>> layers.DepthwiseConv2D(3, depth_multiplier=2)(Input((8, 8, 3))).shape
    (None, 6, 6, 6)
    """

    rank = 2
    _kernel = staticmethod(F.conv2d)


class SeparableConv1D(SeparableConvolution):
    """Over steps: `(batch, steps, channels)` -> `(batch, new steps, filters)`. See `SeparableConvolution`.

    >>> layers.SeparableConv1D(16, 3)(Input((10, 4))).shape
    (None, 8, 16)
    """

    rank = 1
    _kernel = staticmethod(F.conv1d)


class SeparableConv2D(SeparableConvolution):
    """Over images: `(batch, height, width, channels)` -> `(batch, new height, new width, filters)`.

    See `SeparableConvolution`.

    >>> layers.SeparableConv2D(16, 3)(Input((8, 8, 3))).shape
    (None, 6, 6, 16)
    """

    rank = 2
    _kernel = staticmethod(F.conv2d)


SeparableConvolution1D, SeparableConvolution2D = SeparableConv1D, SeparableConv2D
