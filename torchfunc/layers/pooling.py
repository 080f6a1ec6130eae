"""Pooling over windows, and over all positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.kernel import promote_to_float
from torchfunc.layers.shapes import Shape
from torchfunc.layers.spatial import SpatialLayer, integers, one_of, output_size, same_padding

__all__ = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
]


class Pooling(SpatialLayer):
    """One value for each window of positions, channel by channel.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, channels)`; with channels_first the channels come
    before the positions. New positions: `ceil(n / stride)` with padding "same", else `(n - pool_size) // stride + 1`.

    Args:
        pool_size: the size of the window: an integer, or one for each spatial axis.
        strides: likewise, how far apart the windows are; `pool_size` by default.
        padding: "valid" (only whole windows) or "same" (windows may reach over the edges; positions outside do not
            count, neither for the maximum nor for the average).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        name: the layer's name.
        **kwargs: `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range.
    """

    _kernel: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        pool_size: int | tuple[int, ...] = 2,
        strides: int | tuple[int, ...] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        owner = type(self).__name__
        self.pool_size = integers(pool_size, self.rank, "pool_size", owner)
        self.strides = self.pool_size if strides is None else integers(strides, self.rank, "strides", owner)
        self.padding = one_of(padding, ("valid", "same"), "padding", owner)
        self._set_data_format(data_format)

    def call(self, inputs: Tensor) -> Tensor:
        inputs = self._channels_first_view(inputs)
        outputs = self._pool_same(inputs) if self.padding == "same" else self._pool(inputs, (0,) * self.rank, False)
        return self._from_channels_first(outputs)

    def _pool(self, inputs: Tensor, padding: tuple[int, ...], ceil_mode: bool) -> Tensor:
        raise NotImplementedError

    def _pool_same(self, inputs: Tensor) -> Tensor:
        """Windows over the edges, without copying the input into a padded one.

        Torch's kernels pad as much after as before. Where one more is needed after, `ceil_mode` adds the window that
        reaches over the end; it cannot for stride 1, where one more is padded before and the first output dropped.
        """
        axes = list(zip(inputs.shape[2:], self.pool_size, self.strides, strict=True))
        padding = tuple(
            window // 2 if stride == 1 else same_padding(size, window, stride)[0] for size, window, stride in axes
        )
        outputs = self._pool(inputs, padding, True)
        for axis, (size, window, stride) in enumerate(axes):
            if stride == 1 and window % 2 == 0:
                outputs = outputs.narrow(2 + axis, 1, size)
        return outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        padded = self.padding == "same"
        positions = (
            output_size(size, window, stride, padded)
            for size, window, stride in zip(self._positions(input_shape), self.pool_size, self.strides, strict=True)
        )
        return self._with_positions(input_shape, tuple(positions), input_shape[self._channel_axis])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class _MaxPooling(Pooling):
    def _pool(self, inputs: Tensor, padding: tuple[int, ...], ceil_mode: bool) -> Tensor:
        return self._kernel(inputs, self.pool_size, self.strides, padding, ceil_mode=ceil_mode)


class MaxPooling1D(_MaxPooling):
    """The largest value of each window of steps: `(batch, steps, channels)` -> the same rank. See `Pooling`."""

    rank = 1
    _kernel = staticmethod(F.max_pool1d)


class MaxPooling2D(_MaxPooling):
    """The largest value of each window: `(batch, height, width, channels)` -> the same rank. See `Pooling`."""

    rank = 2
    _kernel = staticmethod(F.max_pool2d)


class MaxPooling3D(_MaxPooling):
    """The largest value of each window: `(batch, depth, height, width, channels)` -> the same rank. See `Pooling`."""

    rank = 3
    _kernel = staticmethod(F.max_pool3d)


class _AveragePooling(Pooling):
    def _pool(self, inputs: Tensor, padding: tuple[int, ...], ceil_mode: bool) -> Tensor:
        return self._kernel(inputs, self.pool_size, self.strides, padding, ceil_mode=ceil_mode, count_include_pad=False)


class AveragePooling1D(_AveragePooling):
    """The average of each window of steps: `(batch, steps, channels)` -> the same rank. See `Pooling`."""

    rank = 1
    _kernel = staticmethod(F.avg_pool1d)


class AveragePooling2D(_AveragePooling):
    """The average of each window: `(batch, height, width, channels)` -> the same rank. See `Pooling`."""

    rank = 2
    _kernel = staticmethod(F.avg_pool2d)


class AveragePooling3D(_AveragePooling):
    """The average of each window: `(batch, depth, height, width, channels)` -> the same rank. See `Pooling`."""

    rank = 3
    _kernel = staticmethod(F.avg_pool3d)


class GlobalPooling(SpatialLayer):
    """One value for all positions, channel by channel.

    Shape: `(batch, *positions, channels)` -> `(batch, channels)`, or with `keepdims` `(batch, 1, ..., channels)`; with
    channels_first the channels come before the positions.

    Args:
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        keepdims: whether to keep the spatial axes, with size 1.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.
    """

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keepdims = bool(keepdims)
        self._set_data_format(data_format)
        self._axes = tuple(range(self._first_spatial, self._first_spatial + self.rank))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        ones = (1,) * self.rank if self.keepdims else ()
        return self._with_positions(input_shape, ones, input_shape[self._channel_axis])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


class _GlobalMaxPooling(GlobalPooling):
    def call(self, inputs: Tensor) -> Tensor:
        return inputs.amax(self._axes, self.keepdims)


class GlobalMaxPooling1D(_GlobalMaxPooling):
    """The largest value over all steps: `(batch, steps, channels)` -> `(batch, channels)`. See `GlobalPooling`."""

    rank = 1


class GlobalMaxPooling2D(_GlobalMaxPooling):
    """The largest value: `(batch, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`."""

    rank = 2


class GlobalMaxPooling3D(_GlobalMaxPooling):
    """The largest value: `(batch, depth, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`."""

    rank = 3


class _GlobalAveragePooling(GlobalPooling):
    def call(self, inputs: Tensor) -> Tensor:
        return self._as_float(inputs).mean(self._axes, self.keepdims)

    def _as_float(self, inputs: Tensor) -> Tensor:
        return inputs.to(promote_to_float(inputs.dtype, self.dtype))

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(input_dtypes[0], self.dtype)


class GlobalAveragePooling1D(_GlobalAveragePooling):
    """The average over all steps: `(batch, steps, channels)` -> `(batch, channels)`. See `GlobalPooling`.

    Steps that a mask (batch, steps) leaves out do not count; a sample without any step left gives NaN.
    """

    rank = 1
    supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().call(inputs)
        inputs = self._as_float(inputs)
        kept = mask.to(torch.bool).unsqueeze(self._channel_axis)
        total = inputs.masked_fill(~kept, 0).sum(self._axes, self.keepdims)
        return total / kept.to(inputs.dtype).sum(self._axes, self.keepdims)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return None


class GlobalAveragePooling2D(_GlobalAveragePooling):
    """The average: `(batch, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`."""

    rank = 2


class GlobalAveragePooling3D(_GlobalAveragePooling):
    """The average: `(batch, depth, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`."""

    rank = 3


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
)
