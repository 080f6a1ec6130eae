"""Layers that change colours: RandomBrightness, RandomContrast, RandomErasing, RandomHue and others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.layers.augmentation.base import Factor, ImageAugmentation, factor_range, value_range_of
from torchfunc.layers.base.argument_types import Config

__all__ = [
    "AutoContrast",
    "RandomBrightness",
    "RandomContrast",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPosterization",
    "RandomSaturation",
    "RandomSharpness",
    "Solarization",
]


class _OfRange(ImageAugmentation):
    """The base of layers that know the lowest and the highest value of pixels, `value_range`."""

    def __init__(
        self, value_range: Sequence[float], seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.value_range = value_range_of(value_range, type(self).__name__)

    def _clamped(self, computed: Tensor) -> Tensor:
        """What was computed here, clipped to the range in its own memory."""
        return computed.clamp_(*self.value_range)

    def _scaled(self, images: Tensor, highest: float) -> Tensor:
        """Values from 0 to `highest`."""
        low, high = self.value_range
        return (images - low) * (highest / (high - low))

    def _unscaled(self, images: Tensor, highest: float) -> Tensor:
        low, high = self.value_range
        return images * ((high - low) / highest) + low

    def get_config(self) -> Config:
        return {**super().get_config(), "value_range": self.value_range}


class _OfFactor(_OfRange):
    """The base of layers with a factor to draw, too."""

    lowest, highest = 0.0, 1.0

    def __init__(
        self,
        factor: Factor,
        value_range: Sequence[float],
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed, data_format, **kwargs)
        self.factor = factor_range(factor, "factor", type(self).__name__, self.lowest, self.highest)

    def _chosen(self, images: Tensor) -> Tensor:
        """Which images are changed, of which the factor is the probability."""
        return self._draw(images) < self._draw(images, self.factor)

    def get_config(self) -> Config:
        return {**super().get_config(), "factor": self.factor}


class _OfFactorAndFormat(_OfFactor):
    """The base of those whose `data_format` comes before `seed`, as in Keras."""

    def __init__(
        self,
        factor: Factor,
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, value_range, seed, data_format, **kwargs)


class RandomBrightness(_OfFactor):
    """Adds a number to each image.

    Args:
        factor: the share of the value range to add, from -1 to 1; a number for both directions, or two numbers.
        value_range: the lowest and the highest value of a pixel; the result is clipped to it.
        seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.full((1, 2, 2, 3), 0.5)
    >>> bright = layers.RandomBrightness(factor=(0.25, 0.25), value_range=(0, 1))(images, training=True)
    >>> bright.unique()
    tensor([0.7500])
    """

    lowest = -1.0

    def __init__(
        self, factor: Factor, value_range: Sequence[float] = (0, 255), seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(factor, value_range, seed, **kwargs)

    def _augment(self, images: Tensor) -> Tensor:
        low, high = self.value_range
        return self._clamped(images + self._draw(images, self.factor) * (high - low))


class RandomContrast(_OfFactor):
    """Scales the distance of each image's pixels from their mean, by channel.

    Args:
        factor: `(lower, upper)` for a scale from `1 - lower` to `1 + upper`; a number stands for both, as Keras'
            documentation says.
        value_range: the lowest and the highest value of a pixel; the result is clipped to it.
        seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.tensor([0.4, 0.6]).reshape(1, 1, 2, 1)
    >>> layers.RandomContrast(factor=(0.5, 0.5), value_range=(0, 1))(images, training=False).flatten()
    tensor([0.4000, 0.6000])
    """

    def __init__(
        self, factor: Factor, value_range: Sequence[float] = (0, 255), seed: int | None = None, **kwargs: Any
    ) -> None:
        both = (factor, factor) if isinstance(factor, (int, float)) else factor
        super().__init__(both, value_range, seed, **kwargs)

    def _augment(self, images: Tensor) -> Tensor:
        lower, upper = self.factor
        scale = self._draw(images, (1 - lower, 1 + upper))
        offset = images.mean((2, 3), keepdim=True) * (1 - scale)
        # One number for each value of a line, and not one for each channel, keeps torch's inner loop long.
        offset = self._lines(offset.expand(-1, -1, -1, images.shape[3]))
        return self._from_lines(self._clamped(torch.addcmul(offset, self._lines(images), scale)), images.shape[1])


class RandomInvert(_OfFactor):
    """Inverts an image: a pixel becomes `value_range[1] - pixel`.

    Args:
        factor: the probability, which is drawn as well: from 0 to a number, or between two.
        value_range: the lowest and the highest value of a pixel.
        seed, data_format, **kwargs: see `ImageAugmentation`.

    >>> images = torch.full((1, 2, 2, 3), 0.25)
    >>> layers.RandomInvert(factor=(1.0, 1.0), value_range=(0, 1))(images, training=True).unique()
    tensor([0.7500])
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, value_range, seed, data_format, **kwargs)

    def _augment(self, images: Tensor) -> Tensor:
        return torch.where(self._chosen(images), self.value_range[1] - images, images)


class RandomErasing(_OfFactor):
    """Fills a box within an image.

    Source: Zhong et al. 2017, https://arxiv.org/abs/1708.04896.

    Args:
        factor: the probability, which is drawn as well: from 0 to a number, or between two.
        scale: the share of the image, for each side its root; drawn from 0 to a number, or between two.
        fill_value: a number, or one for each of three channels; None for normal noise times `value_range[1]`.
        value_range: the lowest and the highest value of a pixel; what is filled in is clipped to it.
        seed, data_format, **kwargs: see `ImageAugmentation`.

    Raises:
        ValueError: an argument is out of its range.

    >>> images = torch.ones(1, 8, 8, 3)
    >>> erased = layers.RandomErasing(factor=(1.0, 1.0), fill_value=0.0, value_range=(0, 1))(images, training=True)
    >>> bool((erased == 0).any())
    True
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: Factor = (0.02, 0.33),
        fill_value: float | Sequence[float] | None = None,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, value_range, seed, data_format, **kwargs)
        self.scale = factor_range(scale, "scale", "RandomErasing", 0.0)
        if not (
            fill_value is None
            or isinstance(fill_value, (int, float))
            or (isinstance(fill_value, (tuple, list)) and len(fill_value) == 3)
        ):
            raise ValueError(f"RandomErasing takes None, a number or three for fill_value, got {fill_value!r}.")
        self.fill_value = fill_value

    def _augment(self, images: Tensor) -> Tensor:
        sides = self._draw(images, self.scale, 2, torch.float32).sqrt()
        starts = self._draw(images, count=2, dtype=torch.float32)
        chosen = self._chosen(images)
        edges = []
        for side, start, size in zip(sides.split(1, 1), starts.split(1, 1), images.shape[2:], strict=True):
            first = start * (size * (1 - side))
            edges += [first.ceil().to(torch.int64), (first + side * size).ceil().to(torch.int64)]
        erased = self._each_erased if self._one_by_one(images) else self._all_erased
        return erased(images, edges, chosen)

    def _all_erased(self, images: Tensor, edges: Sequence[Tensor], chosen: Tensor) -> Tensor:
        inside, filling = chosen, self._filling(images)
        for axis, (first, end) in {2: edges[:2], 3: edges[2:]}.items():
            places = torch.arange(images.shape[axis], device=images.device)
            places = places.reshape((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
            inside = inside & (places >= first) & (places < end)
            if filling.shape[axis] > 1:
                filling = filling.take_along_dim((places - first).clamp(0, filling.shape[axis] - 1), axis)
        return torch.where(inside, filling, images)

    def _each_erased(self, images: Tensor, edges: Sequence[Tensor], chosen: Tensor) -> Tensor:
        erased = self._lines(images).clone()
        step = erased.shape[3] // images.shape[3]
        # Without a seed nobody expects the numbers of a compiled step: each box draws its own.
        filling = None
        if self.fill_value is not None:
            filling = self._lines(self._filling(images).expand(*images.shape[:2], 1, images.shape[3]))
        elif self.seed is not None:
            filling = self._lines(self._filling(images))
        places = zip(*(each.flatten().tolist() for each in (chosen, *edges)), strict=True)
        for place, (inside, top, bottom, left, right) in enumerate(places):
            if inside:
                box = erased[place, :, top:bottom, left * step : right * step]
                height, width = box.shape[1:]
                box.copy_(self._noise(box) if filling is None else filling[place, :, :height, :width])
        return self._from_lines(erased, images.shape[1])

    def _filling(self, images: Tensor) -> Tensor:
        """What boxes are filled with: noise from their first pixel on, as large as a box can be, or a colour."""
        if self.fill_value is None:
            # One more, for boxes that rounding makes larger.
            sides = [min(math.ceil(math.sqrt(self.scale[1]) * size) + 1, size) for size in images.shape[2:]]
            return self._noise(images.new_empty((*images.shape[:2], *sides)))
        colour = torch.tensor(self.fill_value, dtype=images.dtype, device=images.device)
        return self._clamped(colour.reshape(1, -1, 1, 1))

    def _noise(self, pixels: Tensor) -> Tensor:
        return self._clamped(self._normal(pixels) * self.value_range[1])

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self.scale, "fill_value": self.fill_value}


class RandomHue(_OfFactorAndFormat):
    """Turns the hues of each RGB image, to one side or the other.

    Args:
        factor: the share of half a turn, from 0 to a number, or between two.
        value_range: the lowest and the highest value of a pixel.
        data_format, seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
    >>> layers.RandomHue(factor=0.5, value_range=(0, 1))(images, training=False).flatten()
    tensor([1., 0., 0.])
    """

    def _augment(self, images: Tensor) -> Tensor:
        side = torch.where(self._draw(images) > 0.5, -0.5, 0.5).to(images.dtype)
        hue, saturation, value = _to_hsv(self._scaled(images, 1.0))
        hue = hue + (self._draw(images, self.factor) * side)[:, 0]
        return self._unscaled(_to_rgb(hue, saturation, value).clamp(0, 1), 1.0)


class RandomSaturation(_OfFactorAndFormat):
    """Scales the saturation of each RGB image by `f / (1 - f)`: 0 is gray, 0.5 changes nothing, 1 is full colour.

    Args:
        factor: what f is drawn between; a number stands for both directions.
        value_range: the lowest and the highest value of a pixel.
        data_format, seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.tensor([0.2, 0.4, 0.6]).reshape(1, 1, 1, 3)
    >>> layers.RandomSaturation(factor=(0.0, 0.0), value_range=(0, 1))(images, training=True).flatten()
    tensor([0.6000, 0.6000, 0.6000])
    """

    lowest = -1.0

    def _augment(self, images: Tensor) -> Tensor:
        factor = self._draw(images, self.factor)[:, 0]
        hue, saturation, value = _to_hsv(images)
        return _to_rgb(hue, (saturation * (factor / (1 - factor + 1e-7))).clamp(0, 1), value)


class RandomSharpness(_OfFactorAndFormat):
    """Blurs or sharpens each image: with f, `smoothed + 2 * f * (image - smoothed)`, where 0.5 changes nothing.

    Args:
        factor: what f is drawn between, from 0 to a number, or two numbers.
        value_range: the lowest and the highest value of a pixel; the result is clipped to it.
        data_format, seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.rand(1, 4, 4, 3)
    >>> sharp = layers.RandomSharpness(factor=(0.5, 0.5), value_range=(0, 1))(images, training=True)
    >>> torch.allclose(sharp, images, atol=1e-5)  # 0.5 changes nothing
    True
    """

    def _augment(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        kernel = torch.full((3, 3), 1 / 13, dtype=images.dtype, device=images.device)
        kernel[1, 1] = 5 / 13
        smoothed = F.conv2d(images, kernel.expand(channels, 1, 3, 3), padding=1, groups=channels)
        return self._clamped(images + (1 - 2 * self._draw(images, self.factor)) * (smoothed - images))


class RandomPosterization(_OfFactorAndFormat):
    """Leaves each image the highest bits of its values.

    Args:
        factor: how many bits of 8, from 1 to below a number, or two equal numbers, or from one to below the other.
        value_range: the lowest and the highest value of a pixel.
        data_format, seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.tensor([0.0, 100.0, 200.0]).reshape(1, 1, 1, 3)
    >>> layers.RandomPosterization(factor=(1, 1), value_range=(0, 255))(images, training=True).flatten()
    tensor([  0.,   0., 128.])
    """

    lowest, highest = 1.0, 8.0

    def _augment(self, images: Tensor) -> Tensor:
        step = torch.exp2(8 - self._draw(images, self.factor).floor())
        values = self._scaled(images, 255.0).clamp(0, 255).floor()
        return self._unscaled((values / step).floor() * step, 255.0)


class RandomGrayscale(ImageAugmentation):
    """Takes the colour of an RGB image away: `0.2989 * red + 0.587 * green + 0.114 * blue`.

    Args:
        factor: the probability.
        data_format, seed, **kwargs: see `ImageAugmentation`.

    Raises:
        ValueError: the factor is not within [0, 1].

    >>> images = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
    >>> layers.RandomGrayscale(factor=1.0)(images, training=True).flatten()
    tensor([0.2989, 0.2989, 0.2989])
    """

    def __init__(
        self, factor: float = 0.5, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        if not isinstance(factor, (int, float)) or not 0 <= factor <= 1:
            raise ValueError(f"RandomGrayscale takes a number from 0 to 1 for factor, got {factor!r}.")
        self.factor = factor

    def _augment(self, images: Tensor) -> Tensor:
        shares = torch.tensor([0.2989, 0.587, 0.114], dtype=images.dtype, device=images.device).reshape(1, 3, 1, 1)
        gray = (images * shares).sum(1, keepdim=True)
        return torch.where(self._draw(images) < self.factor, gray, images)

    def get_config(self) -> Config:
        # Keras writes no seed.
        config = {**super().get_config(), "factor": self.factor}
        return {key: value for key, value in config.items() if key != "seed" or value is not None}


class Solarization(_OfRange):
    """Adds to each image, and inverts what is not below a threshold.

    Args:
        addition_factor: the share of the value range to add, from 0 to a number, or between two.
        threshold_factor: the threshold, as a share of the value range, drawn in the same way.
        value_range: the lowest and the highest value of a pixel.
        seed, **kwargs: see `ImageAugmentation`.

    >>> images = torch.tensor([0.0, 100.0, 200.0]).reshape(1, 1, 1, 3)
    >>> layer = layers.Solarization(threshold_factor=(0.5, 0.5), value_range=(0, 255))
    >>> layer(images, training=True).flatten().round()
    tensor([  0., 100.,  55.])
    """

    def __init__(
        self,
        addition_factor: Factor = 0.0,
        threshold_factor: Factor = 0.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed, **kwargs)
        self.addition_factor = factor_range(addition_factor, "addition_factor", "Solarization", 0.0)
        self.threshold_factor = factor_range(threshold_factor, "threshold_factor", "Solarization", 0.0)

    def _augment(self, images: Tensor) -> Tensor:
        values = (self._scaled(images, 1.0) + self._draw(images, self.addition_factor)).clamp(0, 1)
        values = torch.where(values < self._draw(images, self.threshold_factor), values, 1 - values)
        return self._unscaled(values, 1.0)

    def get_config(self) -> Config:
        own = {"addition_factor": self.addition_factor, "threshold_factor": self.threshold_factor}
        return {**super().get_config(), **own}


class AutoContrast(_OfRange):
    """Stretches the values of each channel over the whole value range; in evaluation as well.

    Args:
        value_range: the lowest and the highest value of a pixel.
        **kwargs: of `Layer`.

    >>> images = torch.tensor([0.25, 0.5, 0.75]).reshape(1, 1, 3, 1)
    >>> layers.AutoContrast(value_range=(0, 1))(images).flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(self, value_range: Sequence[float] = (0, 255), **kwargs: Any) -> None:
        super().__init__(value_range, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return super().call(inputs, training=True)

    def _augment(self, images: Tensor) -> Tensor:
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        extent = high - low
        stretched = self._unscaled((images - low) / torch.where(extent > 0, extent, 1.0), 1.0)
        return torch.where(extent > 0, stretched, images)

    def get_config(self) -> Config:
        return {key: value for key, value in super().get_config().items() if key != "seed"}


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in [0, 1], saturation in [0, 1] and value of NCHW images in RGB; each (n, rows, columns).

    Source: Smith 1978, https://doi.org/10.1145/800248.807361.
    """
    red, green, blue = images.unbind(1)
    value, smallest = images.amax(1), images.amin(1)
    extent = value - smallest
    divisor = 6 * torch.where(extent > 0, extent, 1.0)
    hue = torch.where(value == green, (blue - red) / divisor + 1 / 3, (red - green) / divisor + 2 / 3)
    hue = torch.where(value == red, (green - blue) / divisor, hue)
    saturation = torch.where(value > 0, extent / torch.where(value > 0, value, 1.0), 0.0)
    return torch.where(extent > 0, hue, 0.0) % 1.0, saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sixths = hue % 1.0 * 6
    pure = [(sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()]
    return torch.stack([value * (1 - saturation + saturation * each.clamp(0, 1)) for each in pure], 1)
