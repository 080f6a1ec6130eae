"""The base of layers over positions (convolutions, pooling, up-sampling, padding): sizes, padding, data formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from torchfunc.config import standardize_data_format
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import check_output_shape, integers, one_of
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import Shape

__all__ = ["ConvolvingLayer", "Pairs", "SpatialLayer", "Windows", "output_size", "pad", "same_padding"]

# (before, after) for each spatial axis.
Pairs = Sequence[tuple[int, int]]


class SpatialLayer(Layer):
    """A layer on `(batch, *positions, channels)`, or `(batch, channels, *positions)` with channels_first.

    Kernels of torch see an NCHW view either way; the views cancel between layers.

    Attributes:
        rank: the number of spatial axes, set by each class.
    """

    rank: ClassVar[int]
    data_format: str

    def _set_data_format(self, data_format: str | None) -> None:
        self.data_format = standardize_data_format(data_format)
        axes = self.rank + 2
        self.input_spec = InputSpec(min_ndim=axes, max_ndim=axes)
        self._channels_last = self.data_format == "channels_last"
        self._channel_axis = -1 if self._channels_last else 1
        self._first_spatial = 1 if self._channels_last else 2
        self._to_first = (0, axes - 1, *range(1, axes - 1))
        self._to_last = (0, *range(2, axes), 1)

    def _channels_first_view(self, inputs: Tensor) -> Tensor:
        return inputs.permute(self._to_first) if self._channels_last else inputs

    def _from_channels_first(self, outputs: Tensor) -> Tensor:
        return outputs.permute(self._to_last) if self._channels_last else outputs

    def _positions(self, shape: Shape) -> Shape:
        """The spatial sizes of a shape."""
        return tuple(shape[self._first_spatial : self._first_spatial + self.rank])

    def _with_positions(self, shape: Shape, positions: Shape, channels: int | None) -> Shape:
        """The shape with other spatial sizes and another number of channels."""
        return (shape[0], *positions, channels) if self._channels_last else (shape[0], channels, *positions)

    def build(self, input_shape: Shape) -> None:
        check_output_shape(self, input_shape)


class Windows(NamedTuple):
    """The arguments of a convolution that determine its windows.

    Attributes:
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis.
        padding: "valid", "same", or another that the layer knows.
        data_format: "channels_last" or "channels_first"; None for `config.image_data_format()`.
    """

    kernel_size: int | Sequence[int]
    strides: int | Sequence[int]
    padding: str
    data_format: str | None
    dilation_rate: int | Sequence[int]


class ConvolvingLayer(SpatialLayer):
    """A layer that slides kernels over the positions, given by their size, strides, padding and dilation."""

    def _set_windows(self, windows: Windows, paddings: Sequence[str] = ("valid", "same")) -> None:
        """Check and set the arguments of a convolution."""
        owner = type(self).__name__
        self.kernel_size = integers(windows.kernel_size, self.rank, "kernel_size", owner)
        self.strides = integers(windows.strides, self.rank, "strides", owner)
        self.dilation_rate = integers(windows.dilation_rate, self.rank, "dilation_rate", owner)
        self.padding = one_of(windows.padding, paddings, "padding", owner)
        self._set_data_format(windows.data_format)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{owner} takes strides or a dilation_rate above 1, not both: got strides={self.strides} and "
                f"dilation_rate={self.dilation_rate}."
            )
        # The positions a kernel covers, holes included.
        self._extent = tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate, strict=True))

    def _windows_config(self) -> Config:
        return {
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
        }

    def _output_positions(self, shape: Shape) -> Shape:
        """The spatial sizes after the kernel has slid over an input of this shape."""
        padded = self.padding != "valid"
        sizes = zip(self._positions(shape), self._extent, self.strides, strict=True)
        return tuple(output_size(size, extent, stride, padded) for size, extent, stride in sizes)


def output_size(size: int | None, kernel: int, stride: int, padded: bool) -> int | None:
    """How many windows of `kernel` positions fit: `ceil(size / stride)` if padded, else those fully inside.

    Raises:
        ValueError: none fits.
    """
    if size is None:
        return None
    windows = -(-size // stride) if padded else (size - kernel) // stride + 1
    if windows <= 0:
        raise ValueError(
            f"the output would have no positions, since a window takes {kernel} and the input has only {size}. "
            "Give it a larger input, a smaller window, or padding='same'."
        )
    return windows


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros (before, after) an axis for `ceil(size / stride)` outputs; an odd one goes to the end, as in TensorFlow."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def pad(inputs: Tensor, pairs: Pairs) -> Tensor:
    """Zeros around the last axes of an NCHW view, in the view's memory layout."""
    return F.pad(inputs, [count for pair in reversed(pairs) for count in pair])
