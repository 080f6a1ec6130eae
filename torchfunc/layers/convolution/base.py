"""The base of convolutions: plain, transposed, depthwise and separable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchfunc import regularizers
from torchfunc.layers.base.argument_types import ActivationLike, Config, RoleArguments
from torchfunc.layers.base.checks import check_output_shape, known_size
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.spatial import ConvolvingLayer, Windows, pad, same_padding
from torchfunc.layers.base.weighted_layer import KernelLayer

__all__ = ["SlidingKernel", "WindowKernel"]

# The most channels that one vector of oneDNN has.
_FEW_CHANNELS = 16


class WindowKernel(ConvolvingLayer, KernelLayer):
    """Windows with weights.

    A subclass makes its weights in `_make_weights`, computes in `_convolve`, and knows the output's shape.
    """

    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")
    _kernel: ClassVar[Callable[..., Tensor]]
    _first_weight = "weight"

    def __init__(
        self,
        windows: Windows,
        activation: ActivationLike,
        use_bias: bool,
        weights: Mapping[str, RoleArguments],
        **kwargs: Any,
    ) -> None:
        super().__init__(activation, use_bias, weights, **kwargs)
        self._set_windows(windows, self.paddings)

    def build(self, input_shape: Shape) -> None:
        channels = known_size(input_shape, self._channel_axis, self)
        check_output_shape(self, input_shape)
        self._make_weights(channels)
        axes = self.rank + 2
        self.input_spec = InputSpec(min_ndim=axes, max_ndim=axes, axes={self._channel_axis: channels})

    def _make_weights(self, channels: int) -> None:
        """Make the weights for so many input channels."""
        raise NotImplementedError

    def _convolve(self, inputs: Tensor) -> Tensor:
        """The convolution of an NCHW view, bias included."""
        raise NotImplementedError

    def _view(self, inputs: Tensor) -> Tensor:
        """The inputs as an NCHW view, in the dtype of the weights."""
        return self._channels_first_view(in_dtype_of(getattr(self, self._first_weight), inputs))

    def before_activation(self, inputs: Tensor) -> Tensor:
        return self._from_channels_first(self._convolve(self._view(inputs)))

    def _rectified(self, inputs: Tensor) -> Tensor:
        # In place: the convolution has no other reference, and its gradient does not need it.
        return self._from_channels_first(torch.relu_(self._convolve(self._view(inputs))))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            **self._windows_config(),
            **self._kernel_config(),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
        }


class SlidingKernel(WindowKernel):
    """Windows slid over the input, with Keras' three paddings. A subclass defines the number of output channels."""

    def __init__(
        self,
        windows: Windows,
        activation: ActivationLike,
        use_bias: bool,
        weights: Mapping[str, RoleArguments],
        **kwargs: Any,
    ) -> None:
        super().__init__(windows, activation, use_bias, weights, **kwargs)
        self._skips = max(self.kernel_size) == 1 and max(self.strides) > 1
        # Padding that the kernel itself does: as much before as after, for any input size. None if it cannot.
        self._symmetric = None
        if self.padding == "valid" or max(self._extent) == 1:
            self._symmetric = (0,) * self.rank
        elif self.padding == "same" and max(self.strides) == 1 and all(extent % 2 for extent in self._extent):
            self._symmetric = tuple(extent // 2 for extent in self._extent)

    def _channels_out(self, channels: int | None) -> int | None:
        raise NotImplementedError

    def _slide(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """The windows over an NCHW view, with the padding of the layer."""
        padding, strides = self._symmetric, self.strides
        if padding is None:
            inputs, padding = self._pad(inputs)
        if self._skips and weight.shape[1] < _FEW_CHANNELS:
            # Of one position in several: oneDNN's gradient of such a kernel, with channels last and one thread, writes
            # past its buffer (torch 2.13 on AVX2, fewer than 8 channels). Selecting the positions beforehand avoids it.
            counted: tuple[Any, ...] = (..., *(slice(None, None, stride) for stride in strides))
            inputs = inputs[counted]
            strides = (1,) * self.rank
        return self._kernel(inputs, weight, bias, strides, padding, self.dilation_rate, groups)

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
        positions = self._output_positions(input_shape)
        return self._with_positions(input_shape, positions, self._channels_out(input_shape[self._channel_axis]))
