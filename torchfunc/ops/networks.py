"""Operations of neural networks: convolution, pooling, normalization, attention.

`data_format` is "channels_last" or "channels_first"; `config.image_data_format()` by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.config import epsilon as default_epsilon
from torchfunc.config import standardize_data_format
from torchfunc.ops.tensors import TensorLike, as_axes, as_floating, as_tensor

__all__ = [
    *("adaptive_average_pool", "adaptive_max_pool", "average_pool", "batch_normalization", "conv", "depth_to_space"),
    *("depthwise_conv", "dot_product_attention", "fold", "layer_normalization", "max_pool", "normalize"),
    *("rms_normalization", "separable_conv", "space_to_depth", "unfold"),
]

Sizes = int | Sequence[int]


# Convolution and pooling: inputs (batch, *space, channels), kernels (*window, channels in, channels out)


def conv(
    inputs: TensorLike,
    kernel: TensorLike,
    strides: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Tensor:
    """Convolution in one, two or three dimensions; in groups, if the kernel takes fewer channels than there are.

    Args:
        inputs: (batch, *space, channels), or with channels_first (batch, channels, *space).
        kernel: (*window, channels / groups, filters).
        strides, dilation_rate: a number, or one for each axis of the space.
        padding: "valid" or "same".
        data_format: see above.

    Raises:
        ValueError: another padding.

    >>> ops.conv(np.ones((1, 5, 1)), np.ones((3, 1, 1))).flatten()
    tensor([3., 3., 3.])
    >>> ops.conv(np.zeros((2, 8, 8, 3)), np.zeros((3, 3, 3, 16)), strides=2, padding="same").shape
    torch.Size([2, 4, 4, 16])
    """
    x, weight = _channels_first(inputs, data_format), as_tensor(kernel)
    groups = x.shape[1] // weight.shape[-2]
    found = _convolve(x, weight.permute(-1, -2, *range(weight.ndim - 2)), strides, padding, dilation_rate, groups)
    return _channels_back(found, data_format)


def depthwise_conv(
    inputs: TensorLike,
    kernel: TensorLike,
    strides: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Tensor:
    """Convolution of each channel for itself; kernel (*window, channels, multiplier).

    Args:
        inputs, strides, padding, data_format, dilation_rate: as for `conv`.

    >>> ops.depthwise_conv(np.zeros((2, 8, 8, 3)), np.zeros((3, 3, 3, 2))).shape
    torch.Size([2, 6, 6, 6])
    """
    x, weight = _channels_first(inputs, data_format), as_tensor(kernel)
    *window, channels, multiplier = weight.shape
    weight = weight.reshape(*window, 1, channels * multiplier).permute(-1, -2, *range(len(window)))
    return _channels_back(_convolve(x, weight, strides, padding, dilation_rate, channels), data_format)


def separable_conv(
    inputs: TensorLike,
    depthwise_kernel: TensorLike,
    pointwise_kernel: TensorLike,
    strides: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Tensor:
    """`depthwise_conv`, and a convolution of window 1 after it.

    Args:
        depthwise_kernel: (*window, channels, multiplier).
        pointwise_kernel: (*ones, channels * multiplier, filters).
        inputs, strides, padding, data_format, dilation_rate: as for `conv`.

    >>> ops.separable_conv(np.zeros((2, 8, 8, 3)), np.zeros((3, 3, 3, 2)), np.zeros((1, 1, 6, 16))).shape
    torch.Size([2, 6, 6, 16])
    """
    found = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(found, pointwise_kernel, data_format=data_format)


def _convolve(x: Tensor, weight: Tensor, strides: Sizes, padding: str, dilation: Sizes, groups: int) -> Tensor:
    rank = x.ndim - 2
    steps, dilations = _each(strides, rank), _each(dilation, rank)
    windows = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
    x = _pad_same(x, windows, steps, padding, 0.0)
    run: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return run(x, weight, None, steps, 0, dilations, groups)


def max_pool(
    inputs: TensorLike,
    pool_size: Sizes,
    strides: Sizes | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The largest entry of each window; windows follow each other without `strides`.

    Args:
        pool_size, strides: a number, or one for each axis of the space; strides are `pool_size` by default.
        inputs, padding, data_format: as for `conv`.

    >>> ops.max_pool([[[1.0], [3.0], [2.0], [5.0]]], 2).flatten()
    tensor([3., 5.])
    """
    x = _channels_first(inputs, data_format)
    rank = x.ndim - 2
    windows = _each(pool_size, rank)
    steps = windows if strides is None else _each(strides, rank)
    x = _pad_same(x, windows, steps, padding, -torch.inf)
    run: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    return _channels_back(run(x, windows, steps), data_format)


def average_pool(
    inputs: TensorLike,
    pool_size: Sizes,
    strides: Sizes | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The mean of each window, of what is within the input.

    Args:
        inputs, pool_size, strides, padding, data_format: as for `max_pool`.

    >>> ops.average_pool([[[1.0], [3.0], [2.0], [5.0]]], 2).flatten()
    tensor([2.0000, 3.5000])
    """
    x = _channels_first(inputs, data_format)
    rank = x.ndim - 2
    windows = _each(pool_size, rank)
    steps = windows if strides is None else _each(strides, rank)
    run: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    padded = _pad_same(x, windows, steps, padding, 0.0)
    if padded is x:
        return _channels_back(run(x, windows, steps), data_format)
    inside = _pad_same(torch.ones_like(x[:1, :1]), windows, steps, padding, 0.0)
    return _channels_back(run(padded, windows, steps) / run(inside, windows, steps), data_format)


def adaptive_average_pool(inputs: TensorLike, output_size: Sizes, data_format: str | None = None) -> Tensor:
    """The means of so many windows as the output has places.

    Args:
        output_size: how many places: a number, or one for each axis of the space.
        inputs, data_format: as for `conv`.

    >>> ops.adaptive_average_pool([[[1.0], [3.0], [2.0], [6.0]]], 1).flatten()
    tensor([3.])
    """
    x = _channels_first(inputs, data_format)
    run: Callable[..., Tensor] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[x.ndim - 3]
    return _channels_back(run(x, _each(output_size, x.ndim - 2)), data_format)


def adaptive_max_pool(inputs: TensorLike, output_size: Sizes, data_format: str | None = None) -> Tensor:
    """The largest entries of so many windows as the output has places.

    Args:
        inputs, output_size, data_format: as for `adaptive_average_pool`.

    >>> ops.adaptive_max_pool([[[1.0], [3.0], [2.0], [6.0]]], 2).flatten()
    tensor([3., 6.])
    """
    x = _channels_first(inputs, data_format)
    run: Callable[..., Tensor] = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[x.ndim - 3]
    return _channels_back(run(x, _each(output_size, x.ndim - 2)), data_format)


def _channels_first(inputs: TensorLike, data_format: str | None) -> Tensor:
    x = as_floating(inputs)
    return torch.movedim(x, -1, 1) if standardize_data_format(data_format) == "channels_last" else x


def _channels_back(x: Tensor, data_format: str | None) -> Tensor:
    return torch.movedim(x, 1, -1) if standardize_data_format(data_format) == "channels_last" else x


def _each(sizes: Sizes, rank: int) -> tuple[int, ...]:
    return (sizes,) * rank if isinstance(sizes, int) else tuple(sizes)


def _pad_same(x: Tensor, windows: Sequence[int], steps: Sequence[int], padding: str, value: float) -> Tensor:
    """(batch, channels, *space), padded so that there is a window for each step, the greater half at the end."""
    if padding not in ("valid", "same"):
        raise ValueError(f'padding is "valid" or "same", got {padding!r}.')
    if padding == "valid":
        return x
    widths: list[Any] = []
    for size, window, step in zip(x.size()[:1:-1], windows[::-1], steps[::-1], strict=True):
        missing = window - 1 - (size - 1) % step
        missing = (missing + abs(missing)) // 2
        widths.extend([missing // 2, missing - missing // 2])
    return x if all(isinstance(width, int) and width == 0 for width in widths) else F.pad(x, widths, value=value)


def unfold(x: TensorLike, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """The windows of images (batch, channels, height, width) as columns, as `torch.nn.functional.unfold`.

    >>> ops.unfold(torch.zeros(1, 3, 4, 4), 2).shape  # 3 * 2 * 2 entries, 3 * 3 windows
    torch.Size([1, 12, 9])
    """
    return F.unfold(as_tensor(x), _plain(kernel_size), _plain(dilation), _plain(padding), _plain(stride))


def fold(
    x: TensorLike,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """The sum of windows that `unfold` made, as `torch.nn.functional.fold`.

    >>> columns = ops.unfold(torch.ones(1, 1, 3, 3), 2)
    >>> ops.fold(columns, 3, 2)[0, 0]  # how many windows see each pixel
    tensor([[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]])
    """
    window, rest = _plain(kernel_size), (_plain(dilation), _plain(padding), _plain(stride))
    return F.fold(as_tensor(x), _plain(output_size), window, *rest)


def _plain(sizes: Sizes) -> Any:
    return sizes if isinstance(sizes, int) else tuple(sizes)


def depth_to_space(x: TensorLike, block_size: int, data_format: str = "channels_last") -> Tensor:
    """Each place's channels as a block of places: `block_size` times larger, its square times fewer channels.

    Shape: with `b = block_size`, `(batch, height, width, channels)` -> `(batch, height * b, width * b, channels / b²)`.

    >>> ops.depth_to_space(torch.arange(4.0).reshape(1, 1, 1, 4), 2)[0, :, :, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    x, size = _channels_first(x, data_format), block_size
    batch, channels, height, width = x.size()
    x = x.reshape(batch, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return _channels_back(x.reshape(batch, channels // size**2, height * size, width * size), data_format)


def space_to_depth(x: TensorLike, block_size: int, data_format: str = "channels_last") -> Tensor:
    """The inverse of `depth_to_space`.

    Shape: with `b = block_size`, `(batch, height, width, channels)` -> `(batch, height / b, width / b, channels * b²)`.

    >>> ops.space_to_depth(torch.zeros(1, 4, 6, 3), 2).shape
    torch.Size([1, 2, 3, 12])
    """
    x, size = _channels_first(x, data_format), block_size
    batch, channels, height, width = x.size()
    x = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return _channels_back(x.reshape(batch, channels * size**2, height // size, width // size), data_format)


# Normalization and attention


def normalize(x: TensorLike, axis: int = -1, order: float = 2, epsilon: float | None = None) -> Tensor:
    """`x` divided by its norm of `order` along `axis`.

    >>> ops.normalize([3.0, 4.0])
    tensor([0.6000, 0.8000])
    """
    return F.normalize(as_floating(x), order, axis, default_epsilon() if epsilon is None else epsilon)


def batch_normalization(
    x: TensorLike,
    mean: TensorLike,
    variance: TensorLike,
    axis: int,
    offset: TensorLike | None = None,
    scale: TensorLike | None = None,
    epsilon: float = 1e-3,
) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon) * scale + offset`, with one of each for each entry of `axis`.

    >>> ops.batch_normalization([[1.0, 10.0]], mean=[0.0, 8.0], variance=[1.0, 4.0], axis=-1, epsilon=0.0)
    tensor([[1., 1.]])
    """
    x = as_floating(x)
    shape = [-1 if place == axis % x.ndim else 1 for place in range(x.ndim)]
    factor = torch.rsqrt(as_tensor(variance) + epsilon)
    factor = factor if scale is None else factor * as_tensor(scale)
    shift = -as_tensor(mean) * factor
    shift = shift if offset is None else shift + as_tensor(offset)
    return x * factor.reshape(shape) + shift.reshape(shape)


def layer_normalization(
    x: TensorLike,
    gamma: TensorLike | None = None,
    beta: TensorLike | None = None,
    axis: int | Sequence[int] = -1,
    epsilon: float | None = None,
) -> Tensor:
    """`x` with mean 0 and variance 1 along `axis`, times gamma, plus beta; both of the sizes of these axes.

    >>> ops.layer_normalization([[1.0, 3.0], [10.0, 30.0]]).round(decimals=3)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """
    x, axes = as_floating(x), as_axes(axis)
    centred = x - torch.mean(x, axes, True)
    found = centred * torch.rsqrt(torch.mean(centred**2, axes, True) + _tiny(epsilon))
    return _affine(found, gamma, beta, axes)


def rms_normalization(
    x: TensorLike, scale: TensorLike | None = None, axis: int | Sequence[int] = -1, epsilon: float | None = None
) -> Tensor:
    """`x` divided by the root of its mean square along `axis`, times the scale, of the sizes of these axes.

    >>> ops.rms_normalization([[3.0, 4.0]])
    tensor([[0.8485, 1.1314]])
    """
    x, axes = as_floating(x), as_axes(axis)
    return _affine(x * torch.rsqrt(torch.mean(x**2, axes, True) + _tiny(epsilon)), scale, None, axes)


def _tiny(epsilon: float | None) -> float:
    return default_epsilon() if epsilon is None else epsilon


def _affine(x: Tensor, scale: TensorLike | None, shift: TensorLike | None, axes: Sequence[int]) -> Tensor:
    among = {axis % x.ndim for axis in axes}
    shape = [x.shape[place] if place in among else 1 for place in range(x.ndim)]
    x = x if scale is None else x * as_tensor(scale).reshape(shape)
    return x if shift is None else x + as_tensor(shift).reshape(shape)


def dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    bias: TensorLike | None = None,
    mask: TensorLike | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Tensor:
    """Attention of queries (batch, T, heads, d) to keys and values (batch, S, heads or a divisor of them, d).

    Args:
        query, key, value: the tensors.
        bias: is added to the scores (batch, heads, T, S).
        mask: boolean, of the shape of the scores or broadcast to it; False where nothing is attended to.
        scale: of the scores; `1 / sqrt(d)` by default.
        is_causal: whether a query sees no later key.
        flash_attention: accepted for compatibility with Keras: torch chooses the kernel.
        attn_logits_soft_cap: not supported: ValueError.

    >>> query, key = torch.zeros(2, 5, 4, 8), torch.zeros(2, 7, 4, 8)
    >>> ops.dot_product_attention(query, key, key).shape
    torch.Size([2, 5, 4, 8])
    """
    if attn_logits_soft_cap is not None:
        raise ValueError(
            "ops.dot_product_attention(attn_logits_soft_cap=) is not supported: see torch's flex_attention."
        )
    q, k, v = (torch.swapaxes(as_floating(each), 1, 2) for each in (query, key, value))
    if is_causal and (mask is not None or bias is not None):
        causal = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        mask, is_causal = causal if mask is None else as_tensor(mask) & causal, False
    weights = None if mask is None else as_tensor(mask).to(torch.bool)
    if bias is not None:
        weights = as_floating(bias) if weights is None else torch.where(weights, as_floating(bias), -torch.inf)
    grouped = q.shape[1] != k.shape[1]
    found = F.scaled_dot_product_attention(q, k, v, weights, 0.0, is_causal, scale=scale, enable_gqa=grouped)
    return torch.swapaxes(found, 1, 2)
