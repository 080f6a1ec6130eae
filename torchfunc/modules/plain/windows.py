"""Windows over positions as TensorFlow counts them: padding "same", separable convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SeparableConv1d", "SeparableConv2d", "pad_same", "pool_same", "same_padding", "upsample"]


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Positions to add before and after an axis for `ceil(size / stride)` windows; an odd one goes to the end."""
    total = max(0, (-(-size // stride) - 1) * stride + window - size)
    return total // 2, total - total // 2


@torch.fx.wrap
def pad_same(inputs: Tensor, window: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad (batch, channels, *positions) so that `ceil(size / stride)` windows fit along each axis."""
    counts: list[int] = []
    for size, extent, step in zip(inputs.shape[2:], window, stride, strict=True):
        counts = [*same_padding(size, extent, step), *counts]
    return F.pad(inputs, counts, value=value)


@torch.fx.wrap
def pool_same(inputs: Tensor, window: Sequence[int], stride: Sequence[int], average: bool) -> Tensor:
    """The largest value or the average of windows that may reach over the edges; positions outside do not count."""
    pool: Callable[..., Tensor]
    rank = len(window)
    if not average:
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
        return pool(pad_same(inputs, window, stride, -torch.inf), tuple(window), tuple(stride))
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    ones = torch.ones_like(inputs[:1, :1])
    sums, counts = (pool(pad_same(each, window, stride), tuple(window), tuple(stride)) for each in (inputs, ones))
    return sums / counts


@torch.fx.wrap
def upsample(inputs: Tensor, size: Sequence[int]) -> Tensor:
    """Each position of (batch, channels, *positions) as many times along each axis as `size` says."""
    for axis, count in enumerate(size, start=2):
        inputs = inputs.repeat_interleave(count, axis)
    return inputs


class SeparableConv1d(nn.Module):
    """A convolution of each channel by itself, then a mix of the channels at each position."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = in_channels * depth_multiplier
        self.in_channels, self.out_channels, self.depth_multiplier = in_channels, out_channels, depth_multiplier
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.depthwise_weight = nn.Parameter(torch.empty(hidden, 1, kernel_size))
        self.pointwise_weight = nn.Parameter(torch.empty(out_channels, hidden, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.xavier_uniform_(self.depthwise_weight)
        nn.init.xavier_uniform_(self.pointwise_weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, channels, steps) -> (batch, out_channels, new steps)."""
        hidden = F.conv1d(
            inputs, self.depthwise_weight, None, self.stride, self.padding, self.dilation, self.in_channels
        )
        return F.conv1d(hidden, self.pointwise_weight, self.bias)


class SeparableConv2d(nn.Module):
    """A convolution of each channel by itself, then a mix of the channels at each position."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] | str = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        depth_multiplier: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = in_channels * depth_multiplier
        self.in_channels, self.out_channels, self.depth_multiplier = in_channels, out_channels, depth_multiplier
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.depthwise_weight = nn.Parameter(torch.empty(hidden, 1, *kernel_size))
        self.pointwise_weight = nn.Parameter(torch.empty(out_channels, hidden, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.xavier_uniform_(self.depthwise_weight)
        nn.init.xavier_uniform_(self.pointwise_weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, out_channels, new height, new width)."""
        hidden = F.conv2d(
            inputs, self.depthwise_weight, None, self.stride, self.padding, self.dilation, self.in_channels
        )
        return F.conv2d(hidden, self.pointwise_weight, self.bias)
