"""Conv1D, Conv2D, Conv3D."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from torchfunc import regularizers
from torchfunc.layers.input_spec import InputSpec
from torchfunc.layers.kernel import KernelLayer, check_output_shape, known_size, positive
from torchfunc.layers.shapes import Shape
from torchfunc.layers.spatial import SpatialLayer, integers, one_of, output_size, pad, same_padding
from torchfunc.layers.weights import CONVOLUTION

__all__ = [
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Convolution",
    "Convolution1D",
    "Convolution2D",
    "Convolution3D",
    "WindowKernel",
]


class WindowKernel(SpatialLayer, KernelLayer):
    """What convolutions and transposed convolutions share: windows with weights.

    A subclass sets `_kernel_shape` and `_convolve`, and knows the output's shape.
    """

    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        dilation_rate: Any,
        *kernel_arguments: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*kernel_arguments, **kwargs)
        owner = type(self).__name__
        self.filters = positive(filters, "filters", owner)
        self.kernel_size = integers(kernel_size, self.rank, "kernel_size", owner)
        self.strides = integers(strides, self.rank, "strides", owner)
        self.dilation_rate = integers(dilation_rate, self.rank, "dilation_rate", owner)
        self.padding = one_of(padding, self.paddings, "padding", owner)
        self._set_data_format(data_format)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{owner} takes strides or a dilation_rate above 1, not both: got strides={self.strides} and "
                f"dilation_rate={self.dilation_rate}."
            )
        # The positions a kernel reaches over, holes included.
        self._extent = tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate, strict=True))

    def build(self, input_shape: Shape) -> None:
        channels = known_size(input_shape, self._channel_axis, self)
        check_output_shape(self, input_shape)
        self._add_kernel((*self.kernel_size, *self._kernel_channels(channels)), self.filters, CONVOLUTION)
        axes = self.rank + 2
        self.input_spec = InputSpec(min_ndim=axes, max_ndim=axes, axes={self._channel_axis: channels})

    def _kernel_channels(self, channels: int) -> tuple[int, int]:
        """The last two sizes of the kernel in Keras' layout, for so many input channels."""
        raise NotImplementedError

    def _convolve(self, inputs: Tensor) -> Tensor:
        """The convolution of an NCHW view, bias included."""
        raise NotImplementedError

    def _before_activation(self, inputs: Tensor) -> Tensor:
        return self._from_channels_first(self._convolve(self._channels_first_view(inputs)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            **self._activation_config(),
            **self._kernel_config(),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
        }


class Convolution(WindowKernel):
    """A window of weights slid over the positions of the input.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, filters)`; with channels_first the channels come
    before the positions. New positions: `ceil(n / stride)` with padding "same" or "causal", else
    `(n - (kernel_size - 1) * dilation_rate - 1) // stride + 1`.
    Parameters: `weight` (filters, channels / groups, *kernel_size), `bias` (filters,), as in `torch.nn.Conv2d`.

    Args:
        filters: the number of output channels.
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis. Strides and dilation cannot both
            be above 1.
        padding: "valid" (none), "same" (zeros on both sides; an odd one goes to the end, so where depends on the
            input's size), or for `Conv1D` "causal" (zeros before the first step only).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        groups: the channels are split into so many groups, each with filters of its own.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
        kernel_constraint, bias_constraint: see `KernelLayer`.
        activity_regularizer: a penalty on the output.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range, or `filters` or the input's channels do not divide by `groups`.
    """

    _kernel: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            kernel_constraint,
            bias_constraint,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.groups = positive(groups, "groups", type(self).__name__)
        if self.filters % self.groups:
            raise ValueError(
                f"{type(self).__name__} needs filters that divide by groups, got filters={filters} and groups={groups}."
            )
        # What the kernel itself can pad: as much before as after, whatever the input's size. None if it cannot.
        self._symmetric = None
        if self.padding == "valid" or max(self._extent) == 1:
            self._symmetric = (0,) * self.rank
        elif self.padding == "same" and max(self.strides) == 1 and all(extent % 2 for extent in self._extent):
            self._symmetric = tuple(extent // 2 for extent in self._extent)

    def _kernel_channels(self, channels: int) -> tuple[int, int]:
        if channels % self.groups:
            raise ValueError(
                f"{self.describe()} needs input channels that divide by groups={self.groups}, got {channels} channels."
            )
        return channels // self.groups, self.filters

    def _convolve(self, inputs: Tensor) -> Tensor:
        padding = self._symmetric
        if padding is None:
            inputs, padding = self._pad(inputs)
        return self._kernel(inputs, self.weight, self.bias, self.strides, padding, self.dilation_rate, self.groups)

    def _pad(self, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The NCHW view, padded if the kernel cannot do it, and the padding that is left to the kernel."""
        if self.padding == "causal":
            pairs = [(extent - 1, 0) for extent in self._extent]
        else:
            pairs = list(map(same_padding, inputs.shape[2:], self._extent, self.strides))
        if all(before == after for before, after in pairs):
            return inputs, tuple(before for before, _ in pairs)
        return pad(inputs, pairs), (0,) * self.rank

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        padded = self.padding != "valid"
        positions = (
            output_size(size, extent, stride, padded)
            for size, extent, stride in zip(self._positions(input_shape), self._extent, self.strides, strict=True)
        )
        return self._with_positions(input_shape, tuple(positions), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


class Conv1D(Convolution):
    """A convolution over steps: `(batch, steps, channels)` -> `(batch, new steps, filters)`. See `Convolution`."""

    rank = 1
    paddings = ("valid", "same", "causal")
    _kernel = staticmethod(F.conv1d)


class Conv2D(Convolution):
    """A convolution over images: `(batch, height, width, channels)` -> `(batch, new height, new width, filters)`.

    See `Convolution`.
    """

    rank = 2
    _kernel = staticmethod(F.conv2d)


class Conv3D(Convolution):
    """A convolution over volumes: `(batch, depth, height, width, channels)` -> `(..., filters)`. See `Convolution`."""

    rank = 3
    _kernel = staticmethod(F.conv3d)


Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution3D = Conv3D
