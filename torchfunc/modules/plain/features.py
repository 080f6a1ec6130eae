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

    factor: Tensor
    shift: Tensor

    def __init__(
        self, scale: float | Sequence[float], offset: float | Sequence[float] = 0.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.scale, self.offset, self.dtype = scale, offset, dtype
        self.register_buffer("factor", torch.tensor(scale, dtype=dtype), persistent=False)
        self.register_buffer("shift", torch.tensor(offset, dtype=dtype), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return inputs.to(self.dtype) * self.factor + self.shift


class Normalize(nn.Module):
    """`(inputs - mean) / sqrt(variance)`, or the opposite.

    Args:
        shape: of mean and variance.
        broadcast: their shape as it goes with the inputs.
        invert: whether to compute `inputs * sqrt(variance) + mean`.
        fixed: nested lists of a mean and a variance; by default they are learned before, and part of the state_dict.
        dtype: of the result.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        broadcast: Sequence[int],
        invert: bool = False,
        fixed: Sequence[float | Sequence[float]] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape, self.broadcast, self.invert, self.fixed, self.dtype = shape, broadcast, invert, fixed, dtype
        mean, variance = (
            (torch.zeros(tuple(shape)), torch.ones(tuple(shape))) if fixed is None else map(torch.tensor, fixed)
        )
        self.register_buffer("mean", mean.to(dtype), persistent=fixed is None)
        self.register_buffer("variance", variance.to(dtype), persistent=fixed is None)
        if fixed is None:
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

    edges: Tensor

    def __init__(self, boundaries: Sequence[float], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.boundaries, self.dtype = boundaries, dtype
        self.register_buffer("edges", torch.tensor(boundaries, dtype=dtype), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return torch.bucketize(inputs.to(self.dtype), self.edges, right=True)
