"""Numbers and categories brought into form: statistics and boundaries as buffers, integers as vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Bucketize", "Normalize", "Scale", "encode"]


@torch.fx.wrap
def encode(indices: Tensor, depth: int, mode: str, dtype: torch.dtype, weights: Tensor | None = None) -> Tensor:
    """Integers (..., n) as vectors of `depth` numbers: "one_hot", "multi_hot" or "count", in the last axis."""
    if (mode == "one_hot" and (indices.ndim < 2 or indices.shape[-1] != 1)) or indices.ndim == 0:
        indices = indices.unsqueeze(-1)
    indices = indices.to(torch.int64)
    vectors = torch.zeros((*indices.shape[:-1], depth), dtype=dtype, device=indices.device)
    values = torch.ones_like(indices, dtype=dtype) if weights is None else weights.to(dtype)
    return vectors.scatter_add(-1, indices, values) if mode == "count" else vectors.scatter(-1, indices, values)


class Scale(nn.Module):
    """`inputs * scale + offset`.

    Args:
        scale, offset: a number, or nested lists of them that broadcast to the inputs.
        dtype: of the result.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self, scale: float | Sequence[float], offset: float | Sequence[float] = 0.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("scale", torch.tensor(scale, dtype=dtype), persistent=False)
        self.register_buffer("offset", torch.tensor(offset, dtype=dtype), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return inputs.to(self.dtype) * self.scale + self.offset


class Normalize(nn.Module):
    """`(inputs - mean) / sqrt(variance)`, or the opposite.

    Args:
        shape: of mean and variance.
        broadcast: their shape as it goes with the inputs.
        invert: whether to compute `inputs * sqrt(variance) + mean`.
        mean, variance: nested lists of fixed ones; by default they are learned before, and part of the state_dict.
        dtype: of the result.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        broadcast: Sequence[int],
        invert: bool = False,
        mean: float | Sequence[float] | None = None,
        variance: float | Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape, self.broadcast, self.invert, self.dtype = shape, broadcast, invert, dtype
        learned = mean is None
        for name, given, default in (("mean", mean, 0.0), ("variance", variance, 1.0)):
            values = (
                torch.full(tuple(shape), default, dtype=dtype) if given is None else torch.tensor(given, dtype=dtype)
            )
            self.register_buffer(name, values, persistent=learned)
        if learned:
            self.register_buffer("count", torch.zeros((), dtype=torch.int32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        mean, deviation = self.mean.view(self.broadcast), self.variance.view(self.broadcast).sqrt().clamp(min=1e-7)
        inputs = inputs.to(self.dtype)
        return inputs * deviation + mean if self.invert else (inputs - mean) / deviation


class Bucketize(nn.Module):
    """The number of the bin that contains each number: bin i is from boundary i - 1 to below boundary i.

    Args:
        boundaries: in increasing order.
        dtype: of the numbers compared.
    """

    boundaries: Tensor

    def __init__(self, boundaries: Sequence[float], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("boundaries", torch.tensor(boundaries, dtype=dtype), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return torch.bucketize(inputs.to(self.dtype), self.boundaries, right=True)
