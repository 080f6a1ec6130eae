"""Numbers that are computed from a seed and a count of draws: the same on every device and under `torch.compile`.

(torch.compile takes no `torch.Generator`. Where a draw needs one, an operator of its own makes it.)
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torchfunc.graph import sample_dirichlet, sample_gamma
from torchfunc.meta_weights import off_meta

__all__ = ["Seed", "SeedGenerator", "numbers", "seeded_uniform"]


class SeedGenerator(nn.Module):
    """A sequence of random numbers: each draw that gets it as `seed=` takes the next.

    As an attribute of a layer it moves with it, and a copy of the layer goes on from the same place. The place is not
    saved.

    Args:
        seed: an integer; one is drawn by default.
        name: accepted for compatibility with Keras, without effect.

    Raises:
        ValueError: `seed` is no integer.

    >>> seeds = random.SeedGenerator(1)
    >>> first, second = random.normal((3,), seed=seeds), random.normal((3,), seed=seeds)
    >>> torch.equal(first, second)
    False
    >>> torch.equal(first, random.normal((3,), seed=random.SeedGenerator(1)))
    True
    """

    _calls: Tensor

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        super().__init__()
        self.seed = secrets.randbits(32) if seed is None else _checked(seed)
        with off_meta():
            self.register_buffer("_calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, kind: str, shape: Sequence[int] = (), first: Any = None, second: Any = None) -> Tensor:
        """The next draw; for the functions of `torchfunc.random`.

        Args:
            kind: "uniform" for numbers in (0, 1); "integers" for whole ones of 62 bits; "gamma", "beta" and "binomial"
                for those with the parameters `first` and `second`, tensors of one shape.
            shape: the sizes.
            first, second: the parameters.
        """
        # A new tensor: a compiled backward may draw these numbers again from the old one.
        self._calls = self._calls + 1
        key = _key(self.seed, self._calls)
        if kind == "uniform":
            return _uniform(key, shape)
        if kind == "integers":
            return (_bits(key, shape) << 31) ^ _bits(_mix(key + 1), shape)
        return _draw(kind, first, second, key)

    def extra_repr(self) -> str:
        return f"seed={self.seed}"

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class _FixedSeed(SeedGenerator):
    """Draws the same at each call."""

    def forward(self, kind: str, shape: Sequence[int] = (), first: Any = None, second: Any = None) -> Tensor:
        self._calls = torch.zeros_like(self._calls)
        return super().forward(kind, shape, first, second)


Seed: TypeAlias = "int | SeedGenerator | None"


def numbers(seed: Seed, kind: str, shape: Sequence[Any] = (), first: Any = None, second: Any = None) -> Tensor:
    """A draw as `SeedGenerator` makes it; from torch's generator if `seed` is None."""
    if seed is not None:
        generator = seed if isinstance(seed, SeedGenerator) else _FixedSeed(_checked(seed))
        found: Tensor = generator(kind, tuple(shape), first, second)
        return found
    if kind == "uniform":
        return torch.rand(tuple(shape))
    if kind == "integers":
        return torch.randint(0, 2**62, tuple(shape))
    return _sample(kind, first, second, None)


def seeded_uniform(seed: int, calls: Tensor, shape: Sequence[int]) -> Tensor:
    """Numbers in (0, 1), float32: draw number `calls` of the sequence of a seed."""
    return _uniform(_key(seed, calls), shape)


def _checked(seed: Any) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise ValueError(f"A seed is an integer, a SeedGenerator or None, got {seed!r}.") from None


_BITS = 0xFFFFFFFF


def _key(seed: int, calls: Tensor) -> Tensor:
    return torch.as_tensor(_mix(calls + (_mix(seed & _BITS) & _BITS)))


def _uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    return ((_bits(key, shape) >> 9).to(torch.float32) + 0.5).mul(2.0**-23)


def _bits(key: Tensor, shape: Sequence[int]) -> Tensor:
    """32 bits for each place: splitmix, a counter with a large odd stride, mixed. No product overflows an int64."""
    index = torch.arange(math.prod(shape), device=key.device)
    return torch.as_tensor(_mix((index * 0x9E3779B1 + key) & _BITS)).view(tuple(shape))


def _mix(number: Any) -> Any:
    """Scatter 32 bits over 32 bits; for an integer or a tensor of them."""
    number = (((number >> 16) ^ number) * 0x45D9F3B) & _BITS
    number = (((number >> 16) ^ number) * 0x45D9F3B) & _BITS
    return (number >> 16) ^ number


def _sample(kind: str, first: Tensor, second: Tensor, generator: torch.Generator | None) -> Tensor:
    if kind == "gamma":
        return sample_gamma(first, generator=generator)
    if kind == "beta":
        return sample_dirichlet(torch.stack([first, second], -1), generator=generator)[..., 0]
    return torch.binomial(first, second, generator=generator)


@torch.library.custom_op("torchfunc::draw", mutates_args=())
def _draw(kind: str, first: Tensor, second: Tensor, key: Tensor) -> Tensor:
    generator = torch.Generator(first.device).manual_seed(int(key))
    return _sample(kind, first, second, generator).contiguous()


@_draw.register_fake
def _(kind: str, first: Tensor, second: Tensor, key: Tensor) -> Tensor:
    return torch.empty_like(first, memory_format=torch.contiguous_format)
