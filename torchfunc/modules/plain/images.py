"""Images brought to one size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["center_crop", "resize_images"]


def window(images: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A part of (batch, channels, rows, columns)."""
    return images[:, :, top : top + height, left : left + width]


def crop_to_ratio(images: Tensor, height: int, width: int) -> Tensor:
    """The largest part in the middle with the proportions of height and width."""
    rows, columns = images.shape[2:]
    kept_rows = max(min(rows, columns * height // width), 1)
    kept_columns = max(min(columns, rows * width // height), 1)
    return window(images, (rows - kept_rows) // 2, (columns - kept_columns) // 2, kept_rows, kept_columns)


def pad_to_ratio(images: Tensor, height: int, width: int, value: float) -> Tensor:
    """The images, padded on two sides to the proportions of height and width."""
    rows, columns = images.shape[2:]
    above = (max(rows, columns * height // width) - rows) // 2
    left = (max(columns, rows * width // height) - columns) // 2
    return F.pad(images, (left, left, above, above), value=value)


def interpolate(images: Tensor, size: tuple[int, int], mode: str = "bilinear", antialias: bool = False) -> Tensor:
    """The images stretched to a size; "nearest" takes the nearest pixel, as OpenCV does."""
    if mode == "nearest":
        return F.interpolate(images, size, mode="nearest-exact")
    return F.interpolate(images, size, mode=mode, align_corners=False, antialias=antialias)


@torch.fx.wrap
def resize_images(
    images: Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    *,
    crop: bool = False,
    fill_value: float | None = None,
    antialias: bool = False,
) -> Tensor:
    """Images (batch, channels, rows, columns) stretched to a size, in the dtype they have.

    Args:
        images: the images.
        size: height and width.
        mode: "bilinear", "nearest" or "bicubic".
        crop: whether to cut off what makes the image too long, and not to distort it.
        fill_value: what to pad the image with where it is too short, not to distort it; None for no padding.
        antialias: whether to average over the pixels that one new pixel covers.
    """
    dtype = images.dtype
    images = images if dtype in (torch.float32, torch.float64) else images.to(torch.float32)
    if crop:
        images = crop_to_ratio(images, *size)
    elif fill_value is not None:
        images = pad_to_ratio(images, *size, fill_value)
    images = interpolate(images, size, mode, antialias)
    if mode == "bicubic" and dtype == torch.uint8:
        images = images.clamp(0, 255)
    return images.to(dtype) if dtype.is_floating_point else images.round().to(dtype)


@torch.fx.wrap
def center_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of images (batch, channels, rows, columns); smaller ones are enlarged without distortion."""
    above, left = images.shape[2] - size[0], images.shape[3] - size[1]
    if above >= 0 and left >= 0:
        return window(images, above // 2, left // 2, *size)
    return interpolate(crop_to_ratio(images, *size), size)
