"""Pooling over windows of a given size, or of a given number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import integers, one_of
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.spatial import SpatialLayer, output_size, pad, same_padding

__all__ = [
    "AdaptiveAveragePooling1D",
    "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D",
    "AdaptiveMaxPooling2D",
    "AdaptiveMaxPooling3D",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
]


class Pooling(SpatialLayer):
    """One value for each of several windows of positions, channel by channel. A subclass defines the windows."""

    _kernel: ClassVar[Callable[..., Tensor]]

    def _pool(self, inputs: Tensor) -> Tensor:
        """The values for an NCHW view."""
        raise NotImplementedError

    def _new_positions(self, positions: Shape) -> Shape:
        """The number of windows along each spatial axis."""
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        return self._from_channels_first(self._pool(self._channels_first_view(inputs)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        positions = self._new_positions(self._positions(input_shape))
        return self._with_positions(input_shape, positions, input_shape[self._channel_axis])


class WindowPooling(Pooling):
    """One value for each window of positions, channel by channel.

    Shape: `(batch, *positions, channels)` -> `(batch, *new positions, channels)`; with channels_first the channels come
    before the positions. New positions: `ceil(n / stride)` with padding "same", else `(n - pool_size) // stride + 1`.

    Args:
        pool_size: the size of the window: an integer, or one for each spatial axis.
        strides: how far apart the windows are; `pool_size` by default.
        padding: "valid" (only whole windows) or "same" (windows may reach over the edges; positions outside do not
            count, neither for the maximum nor for the average).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        name: the layer's name.
        **kwargs: `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is out of range.
    """

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

    def _pool(self, inputs: Tensor) -> Tensor:
        if self.padding == "same":
            return self._pool_same(inputs)
        return self._kernel(inputs, self.pool_size, self.strides)

    def _pool_same(self, inputs: Tensor) -> Tensor:
        """Windows over the edges, without copying the input into a padded one.

        Torch's kernels pad as much after as before. Where one more is needed after, `ceil_mode` adds the window that
        reaches over the end; it cannot for stride 1, where one more is padded before and the first output dropped.
        """
        axes = list(zip(inputs.shape[2:], self.pool_size, self.strides, strict=True))
        padding = tuple(
            window // 2 if stride == 1 else same_padding(size, window, stride)[0] for size, window, stride in axes
        )
        outputs = self._kernel(inputs, self.pool_size, self.strides, padding, ceil_mode=True)
        for axis, (size, window, stride) in enumerate(axes):
            if stride == 1 and window % 2 == 0:
                outputs = outputs.narrow(2 + axis, 1, size)
        return outputs

    def _new_positions(self, positions: Shape) -> Shape:
        padded = self.padding == "same"
        return tuple(
            output_size(size, window, stride, padded)
            for size, window, stride in zip(positions, self.pool_size, self.strides, strict=True)
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class MaxPooling1D(WindowPooling):
    """The largest value of each window of steps: `(batch, steps, channels)` -> the same rank. See `WindowPooling`.

    >>> layers.MaxPooling1D()(torch.tensor([[[1.0], [3.0], [2.0], [5.0]]])).flatten()
    tensor([3., 5.])
    """

    rank = 1
    _kernel = staticmethod(F.max_pool1d)


class MaxPooling2D(WindowPooling):
    """The largest value of each window: `(batch, height, width, channels)` -> the same rank. See `WindowPooling`.

    >>> layers.MaxPooling2D(3, strides=2, padding="same")(Input((28, 28, 8))).shape
    (None, 14, 14, 8)
    """

    rank = 2
    _kernel = staticmethod(F.max_pool2d)


class MaxPooling3D(WindowPooling):
    """The largest value of each window: `(batch, depth, height, width, channels)` -> the same rank.

    See `WindowPooling`.

    >>> layers.MaxPooling3D()(Input((8, 8, 8, 3))).shape
    (None, 4, 4, 4, 3)
    """

    rank = 3
    _kernel = staticmethod(F.max_pool3d)


def _average(kernel: Callable[..., Tensor]) -> Any:
    """Torch's kernel, for averages in which positions outside the input do not count."""
    return staticmethod(functools.partial(kernel, count_include_pad=False))


class AveragePooling1D(WindowPooling):
    """The average of each window of steps: `(batch, steps, channels)` -> the same rank. See `WindowPooling`.

    >>> layers.AveragePooling1D()(torch.tensor([[[1.0], [3.0], [2.0], [5.0]]])).flatten()
    tensor([2.0000, 3.5000])
    """

    rank = 1
    _kernel = _average(F.avg_pool1d)


class AveragePooling2D(WindowPooling):
    """The average of each window: `(batch, height, width, channels)` -> the same rank. See `WindowPooling`.

    >>> layers.AveragePooling2D((2, 4))(Input((28, 28, 8))).shape
    (None, 14, 7, 8)
    """

    rank = 2
    _kernel = _average(F.avg_pool2d)


class AveragePooling3D(WindowPooling):
    """The average of each window: `(batch, depth, height, width, channels)` -> the same rank. See `WindowPooling`.

    >>> layers.AveragePooling3D()(Input((8, 8, 8, 3))).shape
    (None, 4, 4, 4, 3)
    """

    rank = 3
    _kernel = _average(F.avg_pool3d)

    def _pool_same(self, inputs: Tensor) -> Tensor:
        sizes = inputs.shape[2:]
        if all(size >= window for size, window in zip(sizes, self.pool_size, strict=True)):
            return super()._pool_same(inputs)
        # torch's kernel refuses volumes smaller than a window. On padded copies: the sums, by how many they are of.
        pairs = list(map(same_padding, sizes, self.pool_size, self.strides))
        ones = torch.ones_like(inputs[:1, :1])
        sums, counts = (F.avg_pool3d(pad(each, pairs), self.pool_size, self.strides) for each in (inputs, ones))
        return sums / counts


class AdaptivePooling(Pooling):
    """As many windows as the output is to have positions; they share out the input, and overlap where they must.

    Window `i` of `m` over `n` positions is `floor(i * n / m)` up to `ceil((i + 1) * n / m)`, as in torch.

    Shape: `(batch, *positions, channels)` -> `(batch, *output_size, channels)`; with channels_first the channels come
    before the positions.

    Args:
        output_size: an integer, or one for each spatial axis.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `output_size` is not made of positive integers.
    """

    def __init__(self, output_size: int | tuple[int, ...], data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_size = integers(output_size, self.rank, "output_size", type(self).__name__)
        self._set_data_format(data_format)

    def _pool(self, inputs: Tensor) -> Tensor:
        return self._kernel(inputs, self.output_size)

    def _new_positions(self, positions: Shape) -> Shape:
        return self.output_size

    def get_config(self) -> Config:
        return {**super().get_config(), "output_size": self.output_size, "data_format": self.data_format}


class AdaptiveMaxPooling1D(AdaptivePooling):
    """The largest value of each of `output_size` windows: `(batch, steps, channels)` -> the same rank.

    See `AdaptivePooling`.

    >>> layers.AdaptiveMaxPooling1D(2)(torch.tensor([[[1.0], [3.0], [2.0], [5.0]]])).flatten()
    tensor([3., 5.])
    """

    rank = 1
    _kernel = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPooling2D(AdaptivePooling):
    """The largest value of each of `output_size` windows: `(batch, height, width, channels)` -> the same rank.

    See `AdaptivePooling`.

    >>> layers.AdaptiveMaxPooling2D((2, 3))(Input((None, None, 8))).shape
    (None, 2, 3, 8)
    """

    rank = 2
    _kernel = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPooling3D(AdaptivePooling):
    """The largest value of each of `output_size` windows: `(batch, depth, height, width, channels)` -> the same rank.

    See `AdaptivePooling`.

    >>> layers.AdaptiveMaxPooling3D(2)(Input((8, 8, 8, 3))).shape
    (None, 2, 2, 2, 3)
    """

    rank = 3
    _kernel = staticmethod(F.adaptive_max_pool3d)


class AdaptiveAveragePooling1D(AdaptivePooling):
    """The average of each of `output_size` windows: `(batch, steps, channels)` -> the same rank.

    See `AdaptivePooling`.

    >>> layers.AdaptiveAveragePooling1D(2)(torch.tensor([[[1.0], [3.0], [2.0], [5.0]]])).flatten()
    tensor([2.0000, 3.5000])
    """

    rank = 1
    _kernel = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAveragePooling2D(AdaptivePooling):
    """The average of each of `output_size` windows: `(batch, height, width, channels)` -> the same rank.

    See `AdaptivePooling`.

    >>> layers.AdaptiveAveragePooling2D((2, 3))(Input((None, None, 8))).shape
    (None, 2, 3, 8)
    """

    rank = 2
    _kernel = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAveragePooling3D(AdaptivePooling):
    """The average of each of `output_size` windows: `(batch, depth, height, width, channels)` -> the same rank.

    See `AdaptivePooling`.

    >>> layers.AdaptiveAveragePooling3D(2)(Input((8, 8, 8, 3))).shape
    (None, 2, 2, 2, 3)
    """

    rank = 3
    _kernel = staticmethod(F.adaptive_avg_pool3d)


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
