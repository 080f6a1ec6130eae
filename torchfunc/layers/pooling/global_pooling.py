"""Pooling over all positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.masks import Masks, check_mask
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.spatial import SpatialLayer

__all__ = [
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
]


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

    def get_config(self) -> Config:
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


class _GlobalMaxPooling(GlobalPooling):
    def call(self, inputs: Tensor) -> Tensor:
        return inputs.amax(self._axes, self.keepdims)


class GlobalMaxPooling1D(_GlobalMaxPooling):
    """The largest value over all steps: `(batch, steps, channels)` -> `(batch, channels)`. See `GlobalPooling`.

    >>> layers.GlobalMaxPooling1D()(torch.tensor([[[1.0], [5.0], [3.0]]]))
    tensor([[5.]])
    """

    rank = 1


class GlobalMaxPooling2D(_GlobalMaxPooling):
    """The largest value: `(batch, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`.

    >>> layers.GlobalMaxPooling2D(keepdims=True)(Input((7, 7, 64))).shape
    (None, 1, 1, 64)
    """

    rank = 2


class GlobalMaxPooling3D(_GlobalMaxPooling):
    """The largest value: `(batch, depth, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`.

    >>> layers.GlobalMaxPooling3D()(Input((4, 4, 4, 8))).shape
    (None, 8)
    """

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

    Steps where the mask (batch, steps) is False do not count; a sample without any other step gives NaN.

    >>> layers.GlobalAveragePooling1D()(torch.tensor([[[1.0], [5.0], [3.0]]]))
    tensor([[3.]])
    """

    rank = 1
    supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().call(inputs)
        self._check_mask(inputs, mask)
        inputs = self._as_float(inputs)
        counted = mask.to(torch.bool).unsqueeze(self._channel_axis)
        total = inputs.masked_fill(~counted, 0).sum(self._axes, self.keepdims)
        return total / counted.to(inputs.dtype).sum(self._axes, self.keepdims)

    def _check_mask(self, inputs: Any, mask: Any) -> None:
        check_mask(mask, (inputs.shape[0], inputs.shape[self._first_spatial]), "(batch, steps)", self.describe)

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        return None


class GlobalAveragePooling2D(_GlobalAveragePooling):
    """The average: `(batch, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`.

    >>> layers.GlobalAveragePooling2D()(Input((7, 7, 64))).shape
    (None, 64)
    """

    rank = 2


class GlobalAveragePooling3D(_GlobalAveragePooling):
    """The average: `(batch, depth, height, width, channels)` -> `(batch, channels)`. See `GlobalPooling`.

    >>> layers.GlobalAveragePooling3D()(Input((4, 4, 4, 8))).shape
    (None, 8)
    """

    rank = 3


GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
)
