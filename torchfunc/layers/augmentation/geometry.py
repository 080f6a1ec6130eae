"""Layers that move pixels: RandomFlip, RandomRotation, RandomZoom, RandomTranslation, RandomShear, RandomCrop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.augmentation.base import Factor, ImageAugmentation, factor_range
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import one_of, positive
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.preprocessing.image_sizes import center_cropped

__all__ = ["RandomCrop", "RandomFlip", "RandomRotation", "RandomShear", "RandomTranslation", "RandomZoom"]

_FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")
# Keras' fill modes, as torch calls them; its "reflect" repeats the outermost pixels.
_PADDING = {"reflect": "reflection", "wrap": "border", "constant": "zeros", "nearest": "border"}


class RandomFlip(ImageAugmentation):
    """Mirrors each image with a probability of one half.

    Args:
        mode: "horizontal" (left and right change places), "vertical", or "horizontal_and_vertical" for both, each drawn
            by itself.
        seed, data_format, **kwargs: see `ImageAugmentation`.

    >>> images = torch.tensor([1.0, 2.0]).reshape(1, 1, 2, 1)
    >>> flipped = {tuple(layers.RandomFlip("horizontal")(images, training=True).flatten().tolist()) for _ in range(50)}
    >>> sorted(flipped)
    [(1.0, 2.0), (2.0, 1.0)]
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.mode = one_of(mode, _FLIPS, "mode", "RandomFlip")

    def _augment(self, images: Tensor) -> Tensor:
        axes = [axis for name, axis in (("horizontal", 3), ("vertical", 2)) if name in self.mode]
        chosen = [self._draw(images) < 0.5 for _ in axes]
        if self._one_by_one(images):
            return self._each_flipped(images, axes, chosen)
        for axis, flips in zip(axes, chosen, strict=True):
            images = torch.where(flips, images.flip(axis), images)
        return images

    def _each_flipped(self, images: Tensor, axes: Sequence[int], chosen: Sequence[Tensor]) -> Tensor:
        flipped = images.clone()
        for axis, flips in zip(axes, chosen, strict=True):
            for image, flip in zip(flipped.unbind(), flips.flatten().tolist(), strict=True):
                if flip:
                    image.copy_(image.flip(axis - 1))
        return flipped

    def get_config(self) -> Config:
        return {**super().get_config(), "mode": self.mode}


class _Affine(NamedTuple):
    """Where a pixel comes from: column `a0 * x + a1 * y + a2` and row `b0 * x + b1 * y + b2`; each `(n, 1, 1, 1)`."""

    a0: Tensor
    a1: Tensor
    a2: Tensor
    b0: Tensor
    b1: Tensor
    b2: Tensor


class _RandomAffine(ImageAugmentation):
    """The base of layers that sample each image at other places.

    Args:
        fill_mode: what is outside of the image: "reflect" (d c b a | a b c d | d c b a), "wrap" (the other end),
            "nearest" (the pixel at the border), or "constant" (`fill_value`).
        interpolation: "bilinear" or "nearest".
        seed, data_format, **kwargs: see `ImageAugmentation`.
    """

    def __init__(
        self,
        fill_mode: str,
        interpolation: str,
        seed: int | None,
        fill_value: float,
        data_format: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        owner = type(self).__name__
        self.fill_mode = one_of(fill_mode, tuple(_PADDING), "fill_mode", owner)
        self.interpolation = one_of(interpolation, ("bilinear", "nearest"), "interpolation", owner)
        self.fill_value = fill_value

    def _places(self, images: Tensor, rows: int, columns: int) -> _Affine:
        """The transformation that each image draws."""
        raise NotImplementedError

    def _augment(self, images: Tensor) -> Tensor:
        dtype = images.dtype
        if dtype not in (torch.float32, torch.float64):
            images = images.to(torch.float32)
        rows, columns = images.shape[2:]
        grid = _grid(self._places(images, rows, columns), images)
        offset = self.fill_value if self.fill_mode == "constant" else 0.0
        if self.fill_mode == "wrap":
            grid = _wrapped(grid, images)
            images = F.pad(images, (0, 1, 0, 1), mode="circular")
        sampled = F.grid_sample(
            images - offset if offset else images,
            grid,
            mode=self.interpolation,
            padding_mode=_PADDING[self.fill_mode],
            align_corners=False,
        )
        return (sampled + offset if offset else sampled).to(dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "interpolation": self.interpolation,
        }


def _grid(affine: _Affine, images: Tensor) -> Tensor:
    """torch's grid, where -1 and 1 are the outer edges of an image."""
    rows, columns = images.shape[2:]
    a0, a1, a2, b0, b1, b2 = (each.reshape(-1) for each in affine)
    right = (a0 * (columns - 1) + a1 * (rows - 1) + 2 * a2 + 1) / columns - 1
    down = (b0 * (columns - 1) + b1 * (rows - 1) + 2 * b2 + 1) / rows - 1
    entries = [a0, a1 * (rows / columns), right, b0 * (columns / rows), b1, down]
    matrices = torch.stack(entries, 1).reshape(-1, 2, 3)
    return F.affine_grid(matrices, list(images.shape), align_corners=False)


def _wrapped(grid: Tensor, images: Tensor) -> Tensor:
    """The grid for images that have their first row and column once more at the end."""
    sizes = torch.tensor([images.shape[3], images.shape[2]], dtype=grid.dtype, device=grid.device)
    places = torch.remainder(((grid + 1) * sizes - 1) / 2, sizes)
    return (2 * places + 1) / (sizes + 1) - 1


class RandomRotation(_RandomAffine):
    """Turns each image about its middle.

    Args:
        factor: the share of a full turn, counter-clockwise: a number for as much in both directions, or two numbers.
        fill_mode, interpolation, seed, fill_value, data_format, **kwargs: see `_RandomAffine`.

    >>> images = torch.arange(4.0).reshape(1, 2, 2, 1)
    >>> quarter = layers.RandomRotation(factor=(0.25, 0.25))(images, training=True)  # against the clock
    >>> quarter[0, :, :, 0].round()
    tensor([[1., 3.],
            [0., 2.]])
    """

    def __init__(
        self,
        factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.factor = factor_range(factor, "factor", "RandomRotation")

    def _places(self, images: Tensor, rows: int, columns: int) -> _Affine:
        angle = self._draw(images, self.factor) * (2 * math.pi)
        cos, sin, x, y = angle.cos(), angle.sin(), (columns - 1) / 2, (rows - 1) / 2
        return _Affine(cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos)

    def get_config(self) -> Config:
        return {**super().get_config(), "factor": self.factor}


class RandomZoom(_RandomAffine):
    """Shrinks or enlarges each image about its middle.

    Args:
        height_factor: by what share more is seen (above 0, the image becomes smaller) or less; a number for both
            directions, or two numbers.
        width_factor: the same for the width; by default what is drawn for the height.
        fill_mode, interpolation, seed, fill_value, data_format, **kwargs: see `_RandomAffine`.

    >>> layers.RandomZoom(height_factor=(-0.2, 0.2))(Input((8, 8, 3))).shape
    (None, 8, 8, 3)
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._height = factor_range(height_factor, "height_factor", "RandomZoom")
        self._width = None if width_factor is None else factor_range(width_factor, "width_factor", "RandomZoom")

    def _places(self, images: Tensor, rows: int, columns: int) -> _Affine:
        height = 1 + self._draw(images, self._height)
        width = height if self._width is None else 1 + self._draw(images, self._width)
        none = torch.zeros_like(height)
        return _Affine(width, none, (columns - 1) / 2 * (1 - width), none, height, (rows - 1) / 2 * (1 - height))

    def get_config(self) -> Config:
        return {**super().get_config(), "height_factor": self.height_factor, "width_factor": self.width_factor}


class RandomTranslation(_RandomAffine):
    """Shifts each image.

    Args:
        height_factor: by what share of the height, downwards; a number for both directions, or two numbers.
        width_factor: by what share of the width, to the right.
        fill_mode, interpolation, seed, fill_value, data_format, **kwargs: see `_RandomAffine`.

    >>> images = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    >>> layer = layers.RandomTranslation(height_factor=0.0, width_factor=(0.25, 0.25), fill_mode="constant")
    >>> layer(images, training=True).flatten().round()
    tensor([0., 1., 2., 3.])
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._height = factor_range(height_factor, "height_factor", "RandomTranslation")
        self._width = factor_range(width_factor, "width_factor", "RandomTranslation")

    def _places(self, images: Tensor, rows: int, columns: int) -> _Affine:
        down, right = self._draw(images, self._height) * rows, self._draw(images, self._width) * columns
        one, none = torch.ones_like(down), torch.zeros_like(down)
        return _Affine(one, none, -right, none, one, -down)

    def get_config(self) -> Config:
        return {**super().get_config(), "height_factor": self.height_factor, "width_factor": self.width_factor}


class RandomShear(_RandomAffine):
    """Slants each image, to one side or the other.

    Args:
        x_factor: by what share of the distance from the top, columns are shifted: a number for 0 to that, or two.
        y_factor: by what share of the distance from the left, rows are shifted.
        fill_mode, interpolation, seed, fill_value, data_format, **kwargs: see `_RandomAffine`.

    >>> layers.RandomShear(x_factor=0.2)(Input((8, 8, 3))).shape
    (None, 8, 8, 3)
    """

    def __init__(
        self,
        x_factor: Factor = 0.0,
        y_factor: Factor = 0.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.x_factor = factor_range(x_factor, "x_factor", "RandomShear")
        self.y_factor = factor_range(y_factor, "y_factor", "RandomShear")

    def _places(self, images: Tensor, rows: int, columns: int) -> _Affine:
        side = torch.where(self._draw(images) > 0.5, -1.0, 1.0).to(images.dtype)
        x, y = (self._draw(images, factor) * side for factor in (self.x_factor, self.y_factor))
        one, none = torch.ones_like(x), torch.zeros_like(x)
        return _Affine(one, x, none, y, one, none)

    def get_config(self) -> Config:
        return {**super().get_config(), "x_factor": self.x_factor, "y_factor": self.y_factor}


class RandomCrop(ImageAugmentation):
    """A window of each image, at a place of its own; in evaluation the middle, as of `CenterCrop`.

    Shape: `(batch, rows, columns, channels)` -> `(batch, height, width, channels)`, or channels first. An image that is
    smaller than the window is cropped to its proportions and enlarged, in training too.

    Args:
        height, width: the window's size.
        seed, data_format, **kwargs: see `ImageAugmentation`.

    >>> layers.RandomCrop(24, 24)(Input((32, 32, 3))).shape
    (None, 24, 24, 3)
    """

    def __init__(
        self, height: int, width: int, seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.height, self.width = positive(height, "height", "RandomCrop"), positive(width, "width", "RandomCrop")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        images = inputs.to(self.dtype)
        if images.ndim == 3:
            return self.call(images.unsqueeze(0), training).squeeze(0)
        if self.data_format == "channels_last":
            return self._cropped(images.permute(0, 3, 1, 2), training).permute(0, 2, 3, 1)
        return self._cropped(images, training)

    def _cropped(self, images: Tensor, training: bool | None) -> Tensor:
        above, left = images.shape[2] - self.height, images.shape[3] - self.width
        if not training or above < 0 or left < 0 or above == left == 0:
            return center_cropped(images, self.height, self.width)
        top, start = self._starts(images, above), self._starts(images, left)
        if self._one_by_one(images):
            return self._each_cropped(images, top, start)
        rows = top + torch.arange(self.height, device=images.device)
        columns = start + torch.arange(self.width, device=images.device)
        samples = torch.arange(images.shape[0], device=images.device)[:, None, None]
        # The indexed axes come first, the channels last.
        return images[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _each_cropped(self, images: Tensor, top: Tensor, start: Tensor) -> Tensor:
        lines = self._lines(images)
        step = lines.shape[3] // images.shape[3]
        places = zip(lines, top.flatten().tolist(), start.flatten().tolist(), strict=True)
        windows = [
            image[:, row : row + self.height, column * step : (column + self.width) * step]
            for image, row, column in places
        ]
        return self._from_lines(torch.stack(windows), images.shape[1])

    def _starts(self, images: Tensor, last: int) -> Tensor:
        """A place from 0 to `last` for each image, of shape (n, 1)."""
        drawn = self._draw(images, (0.0, last + 1.0), dtype=torch.float32).reshape(-1, 1)
        return drawn.to(torch.int64).clamp(max=last)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        axis = len(input_shape) - (3 if self.data_format == "channels_last" else 2)
        return (*input_shape[:axis], self.height, self.width, *input_shape[axis + 2 :])

    def get_config(self) -> Config:
        return {**super().get_config(), "height": self.height, "width": self.width}
