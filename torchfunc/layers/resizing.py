"""Layers that change the number of positions: UpSampling, ZeroPadding and Cropping."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import integers, one_of
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.spatial import Pairs, SpatialLayer

__all__ = [
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
]


class UpSampling(SpatialLayer):
    """Each position several times.

    Shape: `(batch, *positions, channels)` -> `(batch, *(positions * size), channels)`; with channels_first the channels
    come before the positions.

    Args:
        size: how many times: an integer, or one for each spatial axis.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `size` is not made of positive integers.
    """

    def __init__(self, size: int | tuple[int, ...] = 2, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = integers(size, self.rank, "size", type(self).__name__)
        self._set_data_format(data_format)

    def call(self, inputs: Tensor) -> Tensor:
        # One copy in any layout and dtype, and a cheaper gradient than F.interpolate's.
        first, last = self._first_spatial, self._first_spatial + self.rank
        before, positions, after = inputs.shape[:first], inputs.shape[first:last], inputs.shape[last:]
        for axis in range(self.rank):
            inputs = inputs.unsqueeze(first + 2 * axis + 1)
        repeated = [size for pair in zip(positions, self.size, strict=True) for size in pair]
        enlarged = [n * count for n, count in zip(positions, self.size, strict=True)]
        return inputs.expand(*before, *repeated, *after).reshape(*before, *enlarged, *after)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        positions = self._positions(input_shape)
        enlarged = (None if n is None else n * count for n, count in zip(positions, self.size, strict=True))
        return self._with_positions(input_shape, tuple(enlarged), input_shape[self._channel_axis])

    def get_config(self) -> Config:
        return {**super().get_config(), "size": self.size, "data_format": self.data_format}


class UpSampling1D(UpSampling):
    """Each step `size` times: `(batch, steps, channels)` -> `(batch, steps * size, channels)`.

    Args:
        size: how many times.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.UpSampling1D(2)(torch.tensor([[[1.0], [2.0]]])).flatten()
    tensor([1., 1., 2., 2.])
    """

    rank = 1

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(size, "channels_last", **kwargs)

    def get_config(self) -> Config:
        config = super().get_config()
        del config["data_format"]
        return {**config, "size": self.size[0]}


class UpSampling2D(UpSampling):
    """Images made larger: `(batch, height, width, channels)` -> `(batch, height * size, width * size, channels)`.

    Args:
        size: how many times: an integer, or (for height, for width).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        interpolation: "nearest" (rows and columns repeated), "bilinear" or "bicubic" (`torch.nn.functional.interpolate`
            with `align_corners=False`).
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.UpSampling2D((2, 3))(Input((4, 4, 8))).shape
    (None, 8, 12, 8)
    """

    rank = 2

    def __init__(
        self,
        size: int | tuple[int, int] = 2,
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, data_format, **kwargs)
        self.interpolation = one_of(
            interpolation, ("nearest", "bilinear", "bicubic"), "interpolation", type(self).__name__
        )

    def call(self, inputs: Tensor) -> Tensor:
        if self.interpolation == "nearest":
            return super().call(inputs)
        inputs = self._channels_first_view(inputs)
        size = [n * count for n, count in zip(inputs.shape[2:], self.size, strict=True)]
        values = inputs if inputs.is_floating_point() else inputs.to(self.dtype)
        outputs = F.interpolate(values, size, mode=self.interpolation, align_corners=False)
        if values is not inputs:
            # Bicubic curves reach beyond the values that they go through.
            limits = torch.iinfo(inputs.dtype)
            outputs = outputs.round().clamp(limits.min, limits.max).to(inputs.dtype)
        return self._from_channels_first(outputs)

    def get_config(self) -> Config:
        return {**super().get_config(), "interpolation": self.interpolation}


class UpSampling3D(UpSampling):
    """Volumes made larger: `(batch, depth, height, width, channels)` -> the same rank. See `UpSampling`.

    >>> layers.UpSampling3D(2)(Input((4, 4, 4, 8))).shape
    (None, 8, 8, 8, 8)
    """

    rank = 3


class ZeroPadding(SpatialLayer):
    """Zeros around the positions.

    Shape: `(batch, *positions, channels)` -> `(batch, *(before + positions + after), channels)`; with channels_first
    the channels come before the positions.

    Args:
        padding: an integer (on all sides), or one entry for each spatial axis: an integer or (before, after). With a
            single spatial axis, just (before, after).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `padding` is something else.
    """

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pairs = _pairs(padding, self.rank, "padding", type(self).__name__)
        self.padding = self._pairs[0] if self.rank == 1 else self._pairs
        self._set_data_format(data_format)

    def call(self, inputs: Tensor) -> Tensor:
        pairs = ((0, 0), *reversed(self._pairs)) if self._channels_last else self._pairs[::-1]
        return F.pad(inputs, [count for pair in pairs for count in pair])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        positions = self._positions(input_shape)
        padded = (None if n is None else n + sum(pair) for n, pair in zip(positions, self._pairs, strict=True))
        return self._with_positions(input_shape, tuple(padded), input_shape[self._channel_axis])

    def get_config(self) -> Config:
        return {**super().get_config(), "padding": self.padding, "data_format": self.data_format}


class ZeroPadding1D(ZeroPadding):
    """Zero steps before and after: `(batch, steps, channels)` -> the same rank. See `ZeroPadding`.

    >>> layers.ZeroPadding1D((1, 2))(torch.tensor([[[7.0]]])).flatten()
    tensor([0., 7., 0., 0.])
    """

    rank = 1


class ZeroPadding2D(ZeroPadding):
    """Zeros around images: `(batch, height, width, channels)` -> the same rank. See `ZeroPadding`.

    >>> layers.ZeroPadding2D(((1, 2), (0, 3)))(Input((4, 4, 8))).shape
    (None, 7, 7, 8)
    """

    rank = 2


class ZeroPadding3D(ZeroPadding):
    """Zeros around volumes: `(batch, depth, height, width, channels)` -> the same rank. See `ZeroPadding`.

    >>> layers.ZeroPadding3D(1)(Input((4, 4, 4, 8))).shape
    (None, 6, 6, 6, 8)
    """

    rank = 3


class Cropping(SpatialLayer):
    """Positions cut off at both ends.

    Shape: `(batch, *positions, channels)` -> `(batch, *(positions - before - after), channels)`; with channels_first
    the channels come before the positions.

    Args:
        cropping: an integer (on all sides), or one entry for each spatial axis: an integer or (before, after). With a
            single spatial axis, just (before, after).
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `cropping` is something else, or nothing would be left.
    """

    def __init__(self, cropping: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pairs = _pairs(cropping, self.rank, "cropping", type(self).__name__)
        self.cropping = self._pairs[0] if self.rank == 1 else self._pairs
        self._set_data_format(data_format)
        window = (slice(before, -after or None) for before, after in self._pairs)
        self._window = (slice(None),) * self._first_spatial + tuple(window)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs[self._window]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        positions = self._positions(input_shape)
        left = [None if n is None else n - sum(pair) for n, pair in zip(positions, self._pairs, strict=True)]
        if any(n is not None and n <= 0 for n in left):
            raise ValueError(f"cropping={self.cropping} leaves nothing of {positions} positions.")
        return self._with_positions(input_shape, tuple(left), input_shape[self._channel_axis])

    def get_config(self) -> Config:
        return {**super().get_config(), "cropping": self.cropping, "data_format": self.data_format}


class Cropping1D(Cropping):
    """Steps cut off at both ends: `(batch, steps, channels)` -> the same rank.

    Args:
        cropping: an integer, or (before, after).
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.Cropping1D((1, 2))(torch.arange(5.0).reshape(1, 5, 1)).flatten()
    tensor([1., 2.])
    """

    rank = 1

    def __init__(self, cropping: int | tuple[int, int] = (1, 1), **kwargs: Any) -> None:
        super().__init__(cropping, "channels_last", **kwargs)

    def get_config(self) -> Config:
        config = super().get_config()
        del config["data_format"]
        return config


class Cropping2D(Cropping):
    """Margins cut off images: `(batch, height, width, channels)` -> the same rank.

    See `Cropping`; nothing is cut off by default.

    >>> layers.Cropping2D(((1, 2), (0, 3)))(Input((8, 8, 3))).shape
    (None, 5, 5, 3)
    """

    rank = 2

    def __init__(self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(Cropping):
    """Margins cut off volumes: `(batch, depth, height, width, channels)` -> the same rank. See `Cropping`.

    >>> layers.Cropping3D(1)(Input((8, 8, 8, 3))).shape
    (None, 6, 6, 6, 3)
    """

    rank = 3


def _pairs(value: Any, rank: int, argument: str, owner: str) -> Pairs:
    """(before, after) for each of `rank` axes, from all the ways to write it."""
    if rank == 1:
        return (_pair(value, argument, owner),)
    values = (value,) * rank if isinstance(value, int) else value
    if not isinstance(values, (tuple, list)) or len(values) != rank:
        raise ValueError(
            f"{owner} takes an integer, or {rank} entries that are integers or (before, after), for {argument}, "
            f"got {value!r}."
        )
    return tuple(_pair(each, argument, owner) for each in values)


def _pair(value: Any, argument: str, owner: str) -> tuple[int, int]:
    before, after = integers(value, 2, argument, owner, minimum=0)
    return before, after
