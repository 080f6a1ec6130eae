"""Operations on images (batch, height, width, channels), or one without the batch; as `ops.image.*`.

`data_format` is "channels_last" or "channels_first"; `config.image_data_format()` by default.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.config import standardize_data_format
from torchfunc.ops.arrays import pad
from torchfunc.ops.networks import conv, depthwise_conv
from torchfunc.ops.tensors import TensorLike, as_floating, as_tensor

__all__ = [
    *("affine_transform", "crop_images", "extract_patches", "gaussian_blur", "hsv_to_rgb", "map_coordinates"),
    *("pad_images", "resize", "rgb_to_grayscale", "rgb_to_hsv", "sobel_edges"),
]

# Keras' names of interpolations, as torch.nn.functional.interpolate calls them.
_INTERPOLATIONS = {"bilinear": "bilinear", "nearest": "nearest-exact", "bicubic": "bicubic", "area": "area"}


def resize(
    images: TensorLike,
    size: Sequence[int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Tensor:
    """Images of another size.

    Args:
        images: the images.
        size: (height, width).
        interpolation: "bilinear", "nearest", "bicubic" or "area".
        antialias: whether "bilinear" and "bicubic" average over what one new pixel covers.
        crop_to_aspect_ratio, pad_to_aspect_ratio: whether the images are cut, or padded with `fill_value`, to the
            proportions of the new size first.
        fill_mode: must be "constant".
        fill_value: see above.
        data_format: see above.

    Raises:
        ValueError: another interpolation or fill mode, or both cropping and padding.

    >>> ops.image.resize(np.zeros((2, 10, 20, 3)), (5, 5)).shape
    torch.Size([2, 5, 5, 3])
    """
    both = crop_to_aspect_ratio and pad_to_aspect_ratio
    if interpolation not in _INTERPOLATIONS or fill_mode != "constant" or both:
        raise ValueError(
            f"ops.image.resize() takes the interpolations {list(_INTERPOLATIONS)} and fill_mode='constant', and may "
            f"either crop or pad; got interpolation={interpolation!r}, fill_mode={fill_mode!r}."
        )
    x = _planes(images, data_format)
    height, width = size
    if crop_to_aspect_ratio or pad_to_aspect_ratio:
        x = _to_proportions(x, height, width, pad_to_aspect_ratio, fill_value)
    smooth = interpolation in ("bilinear", "bicubic")
    found = F.interpolate(
        as_floating(x),
        (int(height), int(width)),
        mode=_INTERPOLATIONS[interpolation],
        align_corners=False if smooth else None,
        antialias=antialias and smooth,
    )
    return _as_given(found, images, data_format)


def _to_proportions(x: Tensor, height: int, width: int, padded: bool, fill_value: float) -> Tensor:
    given_height, given_width = x.shape[-2:]
    choose = max if padded else min
    new_height = max(choose(given_height, int(given_width * height / width)), 1)
    new_width = max(choose(given_width, int(given_height * width / height)), 1)
    if padded:
        above, left = (new_height - given_height) // 2, (new_width - given_width) // 2
        return F.pad(x, (left, left, above, above), value=fill_value)
    above, left = (given_height - new_height) // 2, (given_width - new_width) // 2
    return x[..., above : above + new_height, left : left + new_width]


def rgb_to_grayscale(images: TensorLike, data_format: str | None = None) -> Tensor:
    """The brightness, with one channel: `0.2989 * red + 0.587 * green + 0.114 * blue`.

    >>> ops.image.rgb_to_grayscale([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])
    tensor([[[0.9999],
             [0.2989]]])
    """
    axis = _channel_axis(data_format)
    x = as_tensor(images)
    red, green, blue = torch.unbind(as_floating(x), axis)
    return torch.unsqueeze(0.2989 * red + 0.587 * green + 0.114 * blue, axis).to(x.dtype)


def rgb_to_hsv(images: TensorLike, data_format: str | None = None) -> Tensor:
    """Hue, saturation and value, each in [0, 1], of red, green and blue in [0, 1].

    >>> ops.image.rgb_to_hsv([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]])
    tensor([[[0.0000, 1.0000, 1.0000],
             [0.3333, 1.0000, 0.5000]]])
    """
    axis = _channel_axis(data_format)
    x = as_floating(images)
    red, green, blue = torch.unbind(x, axis)
    value = torch.amax(x, axis)
    span = value - torch.amin(x, axis)
    safe = torch.where(span == 0, 1, span)
    hue = torch.where(
        torch.eq(value, red),
        (green - blue) / safe,
        torch.where(torch.eq(value, green), 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.where(span == 0, 0, torch.remainder(hue / 6, 1))
    saturation = torch.where(value == 0, 0, span / torch.where(value == 0, 1, value))
    return torch.stack([hue, saturation, value], axis)


def hsv_to_rgb(images: TensorLike, data_format: str | None = None) -> Tensor:
    """The inverse of `rgb_to_hsv`.

    >>> ops.image.hsv_to_rgb([[[0.0, 1.0, 1.0]]])
    tensor([[[1., 0., 0.]]])
    """
    axis = _channel_axis(data_format)
    hue, saturation, value = torch.unbind(as_floating(images), axis)

    def channel(offset: int) -> Tensor:
        place = torch.remainder(offset + hue * 6, 6)
        return value - value * saturation * torch.clamp(torch.minimum(place, 4 - place), 0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], axis)


def extract_patches(
    images: TensorLike,
    size: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    dilation_rate: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The windows of images, each as the channels of one place: (batch, rows, columns, height * width * channels).

    Args:
        images: the images.
        size: (height, width) of a window.
        strides: how far apart windows are; `size` by default.
        dilation_rate: how far apart the pixels of one are.
        padding: "valid" or "same".
        data_format: see above.

    >>> ops.image.extract_patches(np.zeros((1, 4, 6, 3)), size=2).shape
    torch.Size([1, 2, 3, 12])
    """
    x = as_floating(images)
    axis = _channel_axis(data_format)
    height, width = (size, size) if isinstance(size, int) else size
    channels = x.shape[axis]
    count = height * width * channels
    kernel = torch.eye(count, dtype=x.dtype).reshape(height, width, channels, count)
    batch = x if x.ndim == 4 else x[None]
    found = conv(batch, kernel, size if strides is None else strides, padding, data_format, dilation_rate)
    return found if x.ndim == 4 else found[0]


def crop_images(
    images: TensorLike,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """Images without some rows and columns. In each direction, two of both margins and the new size are given.

    Args:
        top_cropping, left_cropping, bottom_cropping, right_cropping: the margins.
        target_height, target_width: the new size.

    Raises:
        ValueError: not exactly two of the three are given, or a margin would be negative.

    >>> ops.image.crop_images(np.zeros((1, 10, 10, 3)), 1, 2, target_height=4, target_width=5).shape
    torch.Size([1, 4, 5, 3])
    """
    x = as_tensor(images)
    vertical, horizontal = _space_axes(x, data_format)
    for axis, before, after, target in (
        (vertical, top_cropping, bottom_cropping, target_height),
        (horizontal, left_cropping, right_cropping, target_width),
    ):
        before, _, target = _margins("crop_images", before, after, target, x.shape[axis], -1)
        x = torch.narrow(x, axis, before, target)
    return x


def pad_images(
    images: TensorLike,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """Images with rows and columns of 0 around. In each direction, two of both margins and the new size are given.

    Args:
        top_padding, left_padding, bottom_padding, right_padding: the margins.
        target_height, target_width: the new size.

    Raises:
        ValueError: not exactly two of the three are given, or a margin would be negative.

    >>> ops.image.pad_images(np.zeros((1, 4, 4, 3)), 1, 2, target_height=8, target_width=8).shape
    torch.Size([1, 8, 8, 3])
    """
    x = as_tensor(images)
    vertical, horizontal = _space_axes(x, data_format)
    widths = [(0, 0)] * x.ndim
    for axis, before, after, target in (
        (vertical, top_padding, bottom_padding, target_height),
        (horizontal, left_padding, right_padding, target_width),
    ):
        before, after, _ = _margins("pad_images", before, after, target, x.shape[axis], 1)
        widths[axis] = (before, after)
    return pad(x, widths)


def _margins(
    what: str, before: int | None, after: int | None, target: int | None, size: int, sign: int
) -> tuple[int, int, int]:
    if [before, after, target].count(None) != 1:
        raise ValueError(f"ops.image.{what}() takes exactly two of the margins and the new size in each direction.")
    if target is None:
        assert before is not None
        assert after is not None
        target = size + sign * (before + after)
    if before is None:
        assert after is not None
        before = sign * (target - size) - after
    if after is None:
        after = sign * (target - size) - before
    if min(before, after, target) < 0:
        raise ValueError(f"ops.image.{what}() of a size of {size} to {target} has margins of {before} and {after}.")
    return before, after, target


def gaussian_blur(
    images: TensorLike,
    kernel_size: Sequence[int] = (3, 3),
    sigma: Sequence[float] = (1.0, 1.0),
    data_format: str | None = None,
) -> Tensor:
    """Images, each pixel of which is a mean of its neighbours, weighted by a normal distribution; 0 beyond the edge.

    Args:
        images: the images.
        kernel_size: (height, width) of the neighbourhood.
        sigma: the standard deviation from column to column, and that from row to row.
        data_format: see above.

    >>> ops.image.gaussian_blur(torch.ones(5, 5, 1))[2, 2].round(decimals=3)
    tensor([1.])
    """
    x = as_floating(images)
    rows, columns = _bell(kernel_size[0], sigma[1], x.dtype), _bell(kernel_size[1], sigma[0], x.dtype)
    channels = x.shape[_channel_axis(data_format)]
    kernel = (rows[:, None] * columns[None])[..., None, None].expand(-1, -1, channels, 1)
    found = depthwise_conv(x if x.ndim == 4 else x[None], kernel, 1, "same", data_format)
    return found if x.ndim == 4 else found[0]


def _bell(size: int, sigma: float, dtype: torch.dtype) -> Tensor:
    places = torch.arange(size, dtype=dtype) - (size - 1) / 2
    weights = torch.exp(-((places / sigma) ** 2) / 2)
    return weights / torch.sum(weights)


def sobel_edges(images: TensorLike, data_format: str | None = None) -> Tensor:
    """The change from row to row and from column to column, (batch, height, width, channels, 2); 0 beyond the edge.

    >>> edges = ops.image.sobel_edges(torch.arange(5.0)[:, None].repeat(1, 5)[None, ..., None])
    >>> edges.shape
    torch.Size([1, 5, 5, 1, 2])
    >>> edges[0, 2, 2, 0]  # 1 more from row to row, weighted by 8
    tensor([8., 0.])
    """
    x = _planes(images, data_format)
    smooth, change = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype), torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype)
    kernels = torch.stack([change[:, None] * smooth, smooth[:, None] * change])
    channels = x.shape[1]
    found = F.conv2d(x, kernels[:, None].repeat(channels, 1, 1, 1), padding=1, groups=channels)
    found = torch.movedim(found.unflatten(1, (channels, 2)), 2, -1)
    return torch.movedim(found, 1, 3) if standardize_data_format(data_format) == "channels_last" else found


def map_coordinates(
    inputs: TensorLike,
    coordinates: TensorLike,
    order: int,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
) -> Tensor:
    """The values of a tensor at places between its entries.

    Args:
        inputs: the tensor.
        coordinates: (axes, ...): the places, axis by axis.
        order: 0 for the nearest entry, 1 for linear interpolation.
        fill_mode: what is beyond the edge: "constant" (`fill_value`), "nearest", "wrap", "mirror" (the edge once) or
            "reflect" (the edge twice).
        fill_value: see above.

    Raises:
        ValueError: another order or fill mode.

    >>> ops.image.map_coordinates([10.0, 20.0, 30.0], [[0.5, 2.0]], order=1)
    tensor([15., 30.])
    """
    x, places = as_tensor(inputs), as_floating(coordinates)
    if order not in (0, 1) or fill_mode not in ("constant", "nearest", "wrap", "mirror", "reflect"):
        raise ValueError(
            "ops.image.map_coordinates() takes the orders 0 and 1 and the fill modes constant, nearest, wrap, mirror "
            f"and reflect, got order={order!r}, fill_mode={fill_mode!r}."
        )
    by_axis: list[list[tuple[Tensor, Tensor]]] = []
    for place in torch.unbind(places):
        low = torch.floor(place + (0.5 if order == 0 else 0.0))
        share = place - low
        by_axis.append([(low, torch.ones_like(place))] if order == 0 else [(low, 1 - share), (low + 1, share)])
    total: Any = 0.0
    for corner in itertools.product(*by_axis):
        index, inside, weight = [], torch.ones_like(places[0], dtype=torch.bool), torch.ones_like(places[0])
        for (at, share), size in zip(corner, x.shape, strict=True):
            inside = inside & (at >= 0) & (at < size)
            index.append(_within(at.to(torch.int64), size, fill_mode))
            weight = weight * share
        value = x[tuple(index)]
        total = total + weight * (torch.where(inside, value, fill_value) if fill_mode == "constant" else value)
    return (total if x.dtype.is_floating_point else torch.round(total)).to(x.dtype)


def _within(index: Tensor, size: int, fill_mode: str) -> Tensor:
    """Indices beyond the edges, as the fill mode reads them."""
    if fill_mode == "wrap":
        return torch.remainder(index, size)
    if fill_mode == "mirror" and size > 1:
        index = (size - 1) - torch.abs(torch.remainder(index, 2 * size - 2) - (size - 1))
    elif fill_mode == "reflect":
        index = torch.remainder(index, 2 * size)
        index = torch.where(index >= size, 2 * size - 1 - index, index)
    return torch.clamp(index, 0, size - 1)


def affine_transform(
    images: TensorLike,
    transform: TensorLike,
    interpolation: str = "bilinear",
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Tensor:
    """Images turned, stretched and shifted.

    Args:
        images: the images.
        transform: (batch, 8) or (8,): `a0, a1, a2, b0, b1, b2, 0, 0`: pixel (x, y) of the result is that at
            `(a0 * x + a1 * y + a2, b0 * x + b1 * y + b2)`.
        interpolation: "bilinear" or "nearest".
        fill_mode, fill_value: see `map_coordinates`.
        data_format: see above.

    Raises:
        ValueError: another interpolation or fill mode.

    >>> image = torch.arange(3.0).reshape(1, 3, 1)
    >>> ops.image.affine_transform(image, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]).flatten()  # one pixel to the left
    tensor([1., 2., 0.])
    """
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError(f"ops.image.affine_transform() takes bilinear and nearest, got {interpolation!r}.")
    x = _planes(images, data_format)
    numbers = as_floating(transform)
    numbers = numbers[None] if numbers.ndim == 1 else numbers
    rows = torch.arange(x.shape[-2], dtype=numbers.dtype)[:, None]
    columns = torch.arange(x.shape[-1], dtype=numbers.dtype)
    a0, a1, a2, b0, b1, b2 = (numbers[:, place, None, None] for place in range(6))
    across, down = a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2
    batch, channels = torch.arange(x.shape[0], dtype=numbers.dtype), torch.arange(x.shape[1], dtype=numbers.dtype)
    shape = x.shape
    places = torch.stack(
        [
            batch[:, None, None, None].expand(shape),
            channels[:, None, None].expand(shape),
            down[:, None].expand(shape),
            across[:, None].expand(shape),
        ]
    )
    found = map_coordinates(x, places, 1 if interpolation == "bilinear" else 0, fill_mode, fill_value)
    return _as_given(found, images, data_format)


def _channel_axis(data_format: str | None) -> int:
    return -1 if standardize_data_format(data_format) == "channels_last" else -3


def _space_axes(x: Tensor, data_format: str | None) -> tuple[int, int]:
    last = _channel_axis(data_format) == -1
    return (x.ndim - 3, x.ndim - 2) if last else (x.ndim - 2, x.ndim - 1)


def _planes(images: TensorLike, data_format: str | None) -> Tensor:
    """(batch, channels, height, width), as torch takes images."""
    x = as_tensor(images)
    x = x if x.ndim == 4 else x[None]
    return torch.movedim(x, -1, 1) if _channel_axis(data_format) == -1 else x


def _as_given(found: Tensor, images: TensorLike, data_format: str | None) -> Tensor:
    """What was made of `_planes(images)`, in the form and of the dtype of the images."""
    given = as_tensor(images)
    if not given.dtype.is_floating_point:
        limits = torch.iinfo(given.dtype)
        found = torch.clamp(torch.round(found), limits.min, limits.max)
    found = torch.movedim(found, 1, -1) if _channel_axis(data_format) == -1 else found
    return (found if given.ndim == 4 else found[0]).to(given.dtype)
