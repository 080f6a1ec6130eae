"""Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import integers, positive
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.spatial import Windows
from torchfunc.layers.base.weights import CONVOLUTION
from torchfunc.layers.convolution.base import WindowKernel

__all__ = [
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "Convolution1DTranspose",
    "Convolution2DTranspose",
    "Convolution3DTranspose",
    "TransposedConvolution",
]


class TransposedConvolution(WindowKernel):
    """The gradient of a convolution with respect to its input, used as a layer: it makes inputs larger.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, filters)`; with channels_first the channels come
    before the positions. With `extent = (kernel_size - 1) * dilation_rate + 1`, the new positions are
    `n * stride` for padding "same", `(n - 1) * stride + max(extent, stride)` for "valid"; if `output_padding` is
    given, `(n - 1) * stride + output_padding` plus `extent` for "valid" or `extent % 2` for "same".
    Parameters: `weight` (channels, filters, *kernel_size), `bias` (filters,), as in `torch.nn.ConvTranspose2d`.

    Args:
        filters: the number of output channels.
        kernel_size, strides, dilation_rate: an integer, or one for each spatial axis. Strides and dilation cannot both
            be above 1.
        padding: "valid" or "same": how much of the full result `(n - 1) * stride + extent` is returned.
        output_padding: further positions at the end, less than the stride; None for the sizes given above.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
        kernel_constraint, bias_constraint: see `KernelLayer`.
        activity_regularizer: a penalty on the output.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        output_padding: int | tuple[int, ...] | None = None,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
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
        owner = type(self).__name__
        self.filters = positive(filters, "filters", owner)
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = integers(output_padding, self.rank, "output_padding", owner, minimum=0)
            if any(extra >= stride for extra, stride in zip(self.output_padding, self.strides, strict=True)):
                raise ValueError(
                    f"{owner} needs an output_padding below strides on every axis, got "
                    f"output_padding={self.output_padding} and strides={self.strides}."
                )
        extras = self.output_padding or (None,) * self.rank
        self._crops = [
            crop(extent, stride, extra, self.padding == "same")
            for extent, stride, extra in zip(self._extent, self.strides, extras, strict=True)
        ]
        # The kernel crops as much after as before, less its output_padding; anything more is cut off afterwards.
        self._kernel_padding = tuple(before for before, _ in self._crops)
        self._kernel_extra = tuple(max(0, before - after) for before, after in self._crops)
        self._cuts = [(2 + axis, after - before) for axis, (before, after) in enumerate(self._crops) if after > before]

    def _make_weights(self, channels: int) -> None:
        self._make_weight("kernel", (*self.kernel_size, self.filters, channels), "weight", CONVOLUTION)
        self._make_bias((self.filters,))

    def _convolve(self, inputs: Tensor) -> Tensor:
        outputs = self._kernel(
            inputs,
            self.weight,
            self.bias,
            self.strides,
            self._kernel_padding,
            self._kernel_extra,
            1,
            self.dilation_rate,
        )
        for axis, count in self._cuts:
            outputs = outputs.narrow(axis, 0, outputs.shape[axis] - count)
        return outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        axes = zip(self._positions(input_shape), self.strides, self._extent, self._crops, strict=True)
        positions = tuple(
            None if n is None else (n - 1) * stride + extent - sum(crop) for n, stride, extent, crop in axes
        )
        if any(n is not None and n <= 0 for n in positions):
            raise ValueError(f"the output would have {positions} positions. Give it a larger input or output_padding.")
        return self._with_positions(input_shape, positions, self.filters)

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters, "output_padding": self.output_padding}


def crop(extent: int, stride: int, extra: int | None, same: bool) -> tuple[int, int]:
    """What is cut off (before, after) the full result of `(n - 1) * stride + extent` positions; below 0, added.

    This is the window that TensorFlow, and so Keras, uses (keras/src/backend/common/backend_utils.py).
    """
    if not same:
        return 0, min(0, extent - stride) if extra is None else -extra
    size = stride + extent if extra is None else extent + extent % 2 + extra
    total = 2 * extent - size
    before = max(0, total // 2)
    return before, total - before


class Conv1DTranspose(TransposedConvolution):
    """A transposed convolution over steps: `(batch, steps, channels)` -> `(batch, new steps, filters)`.

    See `TransposedConvolution`.

    >>> layers.Conv1DTranspose(16, 3, strides=2, padding="same")(Input((10, 4))).shape
    (None, 20, 16)
    """

    rank = 1
    _kernel = staticmethod(F.conv_transpose1d)


class Conv2DTranspose(TransposedConvolution):
    """A transposed convolution over images: `(batch, height, width, channels)` -> `(..., filters)`.

    See `TransposedConvolution`.

    >>> layers.Conv2DTranspose(16, 3, strides=2, padding="same")(Input((7, 7, 64))).shape
    (None, 14, 14, 16)
    """

    rank = 2
    _kernel = staticmethod(F.conv_transpose2d)


class Conv3DTranspose(TransposedConvolution):
    """A transposed convolution over volumes: `(batch, depth, height, width, channels)` -> `(..., filters)`.

    See `TransposedConvolution`.

    >>> layers.Conv3DTranspose(16, 3)(Input((4, 4, 4, 8))).shape
    (None, 6, 6, 6, 16)
    """

    rank = 3
    _kernel = staticmethod(F.conv_transpose3d)

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        output_padding: int | tuple[int, ...] | None = None,
        *arguments: Any,
        **kwargs: Any,
    ) -> None:
        # As in Keras, where data_format and output_padding are in the opposite order of its two siblings.
        super().__init__(filters, kernel_size, strides, padding, output_padding, data_format, *arguments, **kwargs)


Convolution1DTranspose = Conv1DTranspose
Convolution2DTranspose = Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
