"""Conv1D, Conv2D, Conv3D."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import positive
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.layers.base.spatial import Windows
from torchfunc.layers.base.weights import CONVOLUTION
from torchfunc.layers.convolution.base import SlidingKernel

__all__ = ["Conv1D", "Conv2D", "Conv3D", "Convolution", "Convolution1D", "Convolution2D", "Convolution3D"]


class Convolution(SlidingKernel):
    """A window of weights slid over the positions of the input.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, filters)`; with channels_first the channels come
    before the positions. New positions: `ceil(n / stride)` with padding "same" or "causal", else
    `(n - (kernel_size - 1) * dilation_rate - 1) // stride + 1`.
    Parameters: `weight` (filters, channels / groups, *kernel_size), `bias` (filters,), as in `torch.nn.Conv2d`.

    Args:
        filters: the number of output channels.
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis. Strides and dilation cannot both
            be above 1.
        padding: "valid" (none), "same" (zeros on both sides; an odd one goes to the end, so the position depends on the
            input's size), or for `Conv1D` "causal" (zeros before the first step only).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        groups: the number of groups into which channels and filters are split.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
        kernel_constraint, bias_constraint: see `KernelLayer`.
        activity_regularizer: a penalty on the output.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range, or `filters` or the input's channels do not divide by `groups`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        groups: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        windows = Windows(kernel_size, strides, padding, data_format, dilation_rate)
        super().__init__(windows, activation, use_bias, weights, activity_regularizer=activity_regularizer, **kwargs)
        self.filters = positive(filters, "filters", type(self).__name__)
        self.groups = positive(groups, "groups", type(self).__name__)
        if self.filters % self.groups:
            raise ValueError(
                f"{type(self).__name__} needs filters that divide by groups, got filters={filters} and groups={groups}."
            )

    def _make_weights(self, channels: int) -> None:
        if channels % self.groups:
            raise ValueError(
                f"{self.describe()} needs input channels that divide by groups={self.groups}, got {channels} channels."
            )
        self._make_weight("kernel", (*self.kernel_size, channels // self.groups, self.filters), "weight", CONVOLUTION)
        self._make_bias((self.filters,))

    def _channels_out(self, channels: int | None) -> int:
        return self.filters

    def _convolve(self, inputs: Tensor) -> Tensor:
        return self._slide(inputs, self.weight, self.bias, self.groups)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The convolution of inputs, without bias and activation. A subclass may compute it otherwise.

        Args:
            inputs: in the layer's data format.
            kernel: in Keras' layout, `(*kernel_size, channels / groups, filters)`, as `layer.kernel` is.
        """
        weight = kernel.movedim((-1, -2), (0, 1))
        return self._from_channels_first(self._slide(self._channels_first_view(inputs), weight, None, self.groups))

    def before_activation(self, inputs: Tensor) -> Tensor:
        if type(self).convolution_op is Convolution.convolution_op:
            return super().before_activation(inputs)
        outputs = self.convolution_op(in_dtype_of(self.weight, inputs), self.kernel)
        if self.bias is None:
            return outputs
        return outputs + (self.bias if self.data_format == "channels_last" else self.bias.view(-1, *(1,) * self.rank))

    def _rectified(self, inputs: Tensor) -> Tensor:
        if type(self).convolution_op is Convolution.convolution_op:
            return super()._rectified(inputs)
        return torch.relu(self.before_activation(inputs))

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters, "groups": self.groups}


class Conv1D(Convolution):
    """A convolution over steps: `(batch, steps, channels)` -> `(batch, new steps, filters)`. See `Convolution`.

    >>> layers.Conv1D(16, 3, padding="causal")(Input((10, 4))).shape
    (None, 10, 16)
    """

    rank = 1
    paddings = ("valid", "same", "causal")
    _kernel = staticmethod(F.conv1d)


class Conv2D(Convolution):
    """A convolution over images: `(batch, height, width, channels)` -> `(batch, new height, new width, filters)`.

    See `Convolution`.

    >>> layers.Conv2D(32, 3, strides=2, padding="same")(Input((28, 28, 1))).shape
    (None, 14, 14, 32)
    >>> layers.Conv2D(1, 2, kernel_initializer="ones")(torch.ones(1, 3, 3, 1)).flatten().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """

    rank = 2
    _kernel = staticmethod(F.conv2d)


class Conv3D(Convolution):
    """A convolution over volumes: `(batch, depth, height, width, channels)` -> `(..., filters)`. See `Convolution`.

    >>> layers.Conv3D(8, (1, 3, 3))(Input((4, 8, 8, 3))).shape
    (None, 4, 6, 6, 8)
    """

    rank = 3
    _kernel = staticmethod(F.conv3d)


Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution3D = Conv3D
