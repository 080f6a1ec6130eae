"""Random layers: noise, and dropout of broadcast or reproducible numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BroadcastDropout", "GaussianDropout", "GaussianNoise", "seeded_uniform"]


def mix(number: Tensor) -> Tensor:
    """Scatter 32 bits over 32 bits."""
    for _ in range(2):
        number = (((number >> 16) ^ number) * 0x45D9F3B) & 0xFFFFFFFF
    return (number >> 16) ^ number


@torch.fx.wrap
def seeded_uniform(calls: Tensor, seed: int, shape: Sequence[int]) -> Tensor:
    """Numbers in (0, 1) that depend on the seed and the count of calls alone, which this raises by one."""
    calls.add_(1)
    key = mix(calls + (mix(torch.full_like(calls, seed & 0xFFFFFFFF)) & 0xFFFFFFFF))
    index = torch.arange(math.prod(shape), device=calls.device)
    bits = mix((index * 0x9E3779B1 + key) & 0xFFFFFFFF)
    return ((bits >> 9).to(torch.float32) + 0.5).mul(2.0**-23).view(tuple(shape))


@torch.fx.wrap
def normal_like(inputs: Tensor, calls: Tensor, seed: int | None) -> Tensor:
    """Standard normal numbers in the shape of the inputs."""
    if seed is None:
        return torch.randn_like(inputs)
    return (torch.erfinv(seeded_uniform(calls, seed, inputs.shape) * 2 - 1) * math.sqrt(2)).to(inputs.dtype)


@torch.fx.wrap
def dropout_scales(
    inputs: Tensor, p: float, noise_shape: Sequence[int | None] | None, calls: Tensor, seed: int | None
) -> Tensor:
    """0 where something is dropped and `1 / (1 - p)` elsewhere, in the noise's shape (None: the input's size)."""
    shape: Sequence[int] = inputs.shape
    if noise_shape is not None:
        shape = [size if fixed is None else fixed for fixed, size in zip(noise_shape, inputs.shape, strict=True)]
    if seed is None:
        return F.dropout(inputs.new_ones(shape), p)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    return (seeded_uniform(calls, seed, shape) >= p).to(inputs.dtype) * scale


class BroadcastDropout(nn.Module):
    """Dropout of the same values along some axes, or of reproducible ones.

    Args:
        p: the share to drop.
        noise_shape: the shape of the random numbers, None for a size of the input; 1 where they are the same.
        seed: an integer for reproducible numbers; None for torch's generator.
        alpha: whether to keep the mean and variance of outputs of `selu`, as `nn.AlphaDropout` does.
    """

    calls: Tensor

    def __init__(
        self, p: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, alpha: bool = False
    ) -> None:
        super().__init__()
        self.p, self.noise_shape, self.seed, self.alpha = p, noise_shape, seed, alpha
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        if not self.training or self.p == 0:
            return inputs
        scales = dropout_scales(inputs, self.p, self.noise_shape, self.calls, self.seed)
        if not self.alpha:
            return inputs * scales
        floor = -1.7580993408473766
        scale = ((1 - self.p) * (1 + self.p * floor**2)) ** -0.5
        return torch.where(scales != 0, inputs, floor) * scale - scale * floor * self.p


class GaussianNoise(nn.Module):
    """Adds normal noise in training.

    Args:
        stddev: its standard deviation.
        seed: an integer for reproducible numbers; None for torch's generator.
    """

    calls: Tensor

    def __init__(self, stddev: float, seed: int | None = None) -> None:
        super().__init__()
        self.stddev, self.seed = stddev, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        if not self.training or not self.stddev:
            return inputs
        return inputs + normal_like(inputs, self.calls, self.seed) * self.stddev


class GaussianDropout(nn.Module):
    """Multiplies by normal noise of mean 1 in training.

    Args:
        p: the rate of the dropout that has the same effect.
        seed: an integer for reproducible numbers; None for torch's generator.
    """

    calls: Tensor

    def __init__(self, p: float, seed: int | None = None) -> None:
        super().__init__()
        self.p, self.seed = p, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        if not self.training or not self.p:
            return inputs
        return inputs * (normal_like(inputs, self.calls, self.seed) * math.sqrt(self.p / (1 - self.p)) + 1)
