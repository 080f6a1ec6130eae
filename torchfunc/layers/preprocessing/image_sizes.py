"""Resizing and CenterCrop: images brought to one size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import one_of, positive
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.spatial import SpatialLayer

__all__ = ["CenterCrop", "Resizing", "center_cropped"]

# torch's "nearest" rounds positions down; Keras, as OpenCV's and TensorFlow's newer ones, takes the nearest.
_MODES = {"bilinear": "bilinear", "nearest": "nearest-exact", "bicubic": "bicubic"}


class _ImageSize(SpatialLayer):
    """Images of any size in, images of `height` x `width` out; also a single image, without a batch axis."""

    rank = 2

    def __init__(self, height: int, width: int, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        self.height, self.width = positive(height, "height", owner), positive(width, "width", owner)
        self._set_data_format(data_format)
        self.input_spec = InputSpec(min_ndim=3, max_ndim=4)

    def _size(self, images: Tensor) -> Tensor:
        """The NCHW view in its new size."""
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 3:
            return self.call(inputs.unsqueeze(0)).squeeze(0)
        return self._from_channels_first(self._size(self._channels_first_view(inputs)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) == 3:
            return self.compute_output_shape((1, *input_shape))[1:]
        return self._with_positions(input_shape, (self.height, self.width), input_shape[self._channel_axis])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "data_format": self.data_format,
        }


class Resizing(_ImageSize):
    """Images stretched to a size.

    Shape: `(batch, rows, columns, channels)` -> `(batch, height, width, channels)`, or channels first; without a batch
    axis for a single image. The dtype is the input's; integers are rounded.

    Args:
        height, width: the new size.
        interpolation: "bilinear", "nearest" or "bicubic" (Keras' "lanczos3" and "lanczos5" exist with TensorFlow only).
        crop_to_aspect_ratio: whether to cut off what makes the image too long for the new size, and not to distort it.
        pad_to_aspect_ratio: whether to widen the image with `fill_value` where it is too short, and not to distort it.
        fill_mode: must be "constant".
        fill_value: the value of the padding.
        antialias: whether to average over the pixels that one new pixel covers, for "bilinear" and "bicubic".
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: an argument is something else, or the image is to be cropped and padded.

    >>> layers.Resizing(32, 48)(Input((64, 64, 3))).shape
    (None, 32, 48, 3)
    """

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, data_format, **kwargs)
        self.interpolation = one_of(interpolation, tuple(_MODES), "interpolation", "Resizing")
        if crop_to_aspect_ratio and pad_to_aspect_ratio:
            raise ValueError("Resizing takes crop_to_aspect_ratio or pad_to_aspect_ratio, not both.")
        self.crop_to_aspect_ratio = crop_to_aspect_ratio
        self.pad_to_aspect_ratio = pad_to_aspect_ratio
        self.fill_mode = one_of(fill_mode, ("constant",), "fill_mode", "Resizing")
        self.fill_value = fill_value
        self.antialias = bool(antialias)

    def _size(self, images: Tensor) -> Tensor:
        dtype = images.dtype
        if dtype not in (torch.float32, torch.float64):
            images = images.to(torch.float32)
        if self.crop_to_aspect_ratio:
            images = _crop_to_ratio(images, self.height, self.width)
        elif self.pad_to_aspect_ratio:
            images = _pad_to_ratio(images, self.height, self.width, self.fill_value)
        images = _interpolate(images, self.height, self.width, self.interpolation, self.antialias)
        if self.interpolation == "bicubic" and dtype == torch.uint8:
            images = images.clamp(0, 255)
        return images.to(dtype) if dtype.is_floating_point else images.round().to(dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "interpolation": self.interpolation,
            "crop_to_aspect_ratio": self.crop_to_aspect_ratio,
            "pad_to_aspect_ratio": self.pad_to_aspect_ratio,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "antialias": self.antialias,
        }


class CenterCrop(_ImageSize):
    """The middle of images. An image smaller than that is enlarged without distortion, and cropped.

    Shape: `(batch, rows, columns, channels)` -> `(batch, height, width, channels)`, or channels first; without a batch
    axis for a single image. The dtype is the layer's.

    Args:
        height, width: the new size.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.CenterCrop(1, 2)(torch.arange(4.0).reshape(1, 1, 4, 1)).flatten()
    tensor([1., 2.])
    """

    def __init__(self, height: int, width: int, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(height, width, data_format, **kwargs)

    def _size(self, images: Tensor) -> Tensor:
        return center_cropped(images.to(self.dtype), self.height, self.width)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype


def center_cropped(images: Tensor, height: int, width: int) -> Tensor:
    """The middle of NCHW images, in a size; smaller ones are cropped to its proportions and enlarged."""
    above, left = images.shape[2] - height, images.shape[3] - width
    if above >= 0 and left >= 0:
        return _window(images, above // 2, left // 2, height, width)
    return _interpolate(_crop_to_ratio(images, height, width), height, width)


def _window(images: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return images[:, :, top : top + height, left : left + width]


def _crop_to_ratio(images: Tensor, height: int, width: int) -> Tensor:
    """The largest part in the middle with the proportions of height and width."""
    rows, columns = images.shape[2:]
    kept_rows = max(min(rows, columns * height // width), 1)
    kept_columns = max(min(columns, rows * width // height), 1)
    return _window(images, (rows - kept_rows) // 2, (columns - kept_columns) // 2, kept_rows, kept_columns)


def _pad_to_ratio(images: Tensor, height: int, width: int, value: float) -> Tensor:
    """The images, padded on two sides to the proportions of height and width."""
    rows, columns = images.shape[2:]
    above = (max(rows, columns * height // width) - rows) // 2
    left = (max(columns, rows * width // height) - columns) // 2
    return F.pad(images, (left, left, above, above), value=value)


def _interpolate(
    images: Tensor, height: int, width: int, interpolation: str = "bilinear", antialias: bool = False
) -> Tensor:
    if interpolation == "nearest":
        return F.interpolate(images, (height, width), mode=_MODES[interpolation])
    return F.interpolate(images, (height, width), mode=_MODES[interpolation], align_corners=False, antialias=antialias)
