"""ImageAugmentation: the base of layers that change images in training, and the arguments that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import standardize_data_format
from torchfunc.graph import is_read_at_once
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.regularization import RandomLayer

__all__ = ["Factor", "ImageAugmentation", "Range", "factor_range", "value_range_of"]

Range = tuple[float, float]
Factor = float | Sequence[float]

# Of smaller images, the calls for each would take longer than passes over the batch.
_VALUES_OF_A_LARGE_IMAGE = 8192


class ImageAugmentation(RandomLayer):
    """A layer on `(batch, rows, columns, channels)`, or channels first, or a single image without the batch axis.

    The output is in the layer's dtype. In evaluation nothing happens.

    Args:
        seed: an integer for reproducible numbers, or None for torch's generator.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: of `Layer`.
    """

    supports_masking = False

    def __init__(self, seed: int | None, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = InputSpec(min_ndim=3, max_ndim=4)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        images = inputs.to(self.dtype)
        if not training:
            return images
        if images.ndim == 3:
            return self._changed(images.unsqueeze(0)).squeeze(0)
        return self._changed(images)

    def _changed(self, images: Tensor) -> Tensor:
        """A batch in the layer's data format, augmented."""
        if self.data_format == "channels_first":
            return self._augment(images)
        return self._augment(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _augment(self, images: Tensor) -> Tensor:
        """An NCHW batch, augmented."""
        raise NotImplementedError

    def _one_by_one(self, images: Tensor) -> bool:
        """Whether each image is better changed by itself, as what was drawn can be read.

        Then only what changes is computed. Otherwise, in a compiled step too, the same is computed for all images.
        """
        return 0 < images.shape[0] * _VALUES_OF_A_LARGE_IMAGE <= images.numel() and is_read_at_once(images)

    def _lines(self, images: Tensor) -> Tensor:
        """An NCHW batch as `(n, 1, rows, columns * channels)`, or `(n, channels, rows, columns)` if channels are first.

        Values that follow each other are neighbours in memory, which is what most of torch's loops are fast for.
        """
        if self.data_format == "channels_first":
            return images
        return images.permute(0, 2, 3, 1).flatten(2).unsqueeze(1)

    def _from_lines(self, lines: Tensor, channels: int) -> Tensor:
        """The NCHW batch of lines."""
        if self.data_format == "channels_first":
            return lines
        return lines.squeeze(1).unflatten(2, (lines.shape[3] // channels, channels)).permute(0, 3, 1, 2)

    def _draw(
        self, images: Tensor, bounds: Range = (0.0, 1.0), count: int = 1, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Numbers within bounds, of shape `(n, count, 1, 1)`, for each image; in the images' dtype by default."""
        shape = (images.shape[0], count, 1, 1)
        numbers = torch.rand(shape, device=images.device) if self.seed is None else self._uniform(shape)
        return (bounds[0] + (bounds[1] - bounds[0]) * numbers).to(dtype or images.dtype)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> Config:
        return {**super().get_config(), "data_format": self.data_format}


def factor_range(factor: Factor, argument: str, owner: str, lowest: float = -1.0, highest: float = 1.0) -> Range:
    """A factor as the two numbers to draw between; a number stands for as much in both directions.

    Raises:
        ValueError: it is something else, or not within the bounds.
    """
    if isinstance(factor, (int, float)) and not isinstance(factor, bool) and lowest <= factor <= highest:
        return max(-abs(factor), lowest), abs(factor)
    if (
        isinstance(factor, (tuple, list))
        and len(factor) == 2
        and all(isinstance(each, (int, float)) and lowest <= each <= highest for each in factor)
    ):
        return min(factor), max(factor)
    raise ValueError(
        f"{owner} takes a number from {lowest:g} to {highest:g}, or two of them, for {argument}, got {factor!r}."
    )


def value_range_of(value_range: Sequence[float], owner: str) -> Range:
    """The lowest and the highest value of pixels.

    Raises:
        ValueError: they are not two different numbers.
    """
    if isinstance(value_range, (tuple, list)) and len(value_range) == 2 and value_range[0] != value_range[1]:
        return min(value_range), max(value_range)
    raise ValueError(f"{owner} takes two different numbers for value_range, got {value_range!r}.")
