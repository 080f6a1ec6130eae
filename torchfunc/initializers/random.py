"""Initializers that draw random values."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchfunc.dtypes import DTypeLike, dtype_name
from torchfunc.initializers.base import Initializer, weight_dtype

__all__ = [
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "Orthogonal",
    "RandomInitializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "compute_fans",
]


class RandomInitializer(Initializer):
    """The base of those that draw random numbers: write `_fill(values, generator)`.

    Args:
        seed: an int: each call draws the same numbers, on whatever device. None (default): torch's global generator
            is used, which `torch.manual_seed` sets, and calls differ from each other. The config of a Keras
            `SeedGenerator` is taken for its seed.

    Raises:
        ValueError: the seed is no int, or the dtype that is asked for is not a floating point type.

    >>> class Coins(initializers.RandomInitializer):
    ...     def _fill(self, values, generator):
    ...         return values.bernoulli_(0.5, generator=generator)
    >>> sorted(set(Coins(seed=0)((100,)).tolist()))
    [0.0, 1.0]
    """

    arguments: ClassVar[tuple[str, ...]] = ("seed",)

    def __init__(self, seed: int | None = None) -> None:
        if isinstance(seed, dict) and seed.get("class_name") == "SeedGenerator":
            seed = seed["config"]["seed"]
        try:
            self.seed = None if seed is None else operator.index(seed)
        except TypeError:
            raise ValueError(f"{type(self).__name__}: seed is an int or None, got {seed!r}.") from None

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        """Return a tensor of random values. Raises ValueError when `dtype` is not a floating point type."""
        target = weight_dtype(dtype)
        if not target.is_floating_point:
            raise ValueError(
                f"{type(self).__name__} draws floating point values, got dtype={dtype_name(target)!r} for a weight of "
                f"shape {tuple(shape)}."
            )
        # Half precision has too few values to draw from, and no QR decomposition.
        working = target if target.itemsize >= 4 else torch.float32
        if self.seed is None:
            values = self._fill(torch.empty(tuple(shape), dtype=working), None)
            return values if working is target else values.to(target)
        values = torch.empty(tuple(shape), dtype=working, device="cpu")
        generator = torch.Generator().manual_seed(self.seed)
        return self._fill(values, generator).to(torch.get_default_device(), target)

    def _fill(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """Overwrite `values` with random numbers from `generator`, and return them."""
        raise NotImplementedError


def _fill_truncated_normal(values: Tensor, mean: float, stddev: float, generator: torch.Generator | None) -> Tensor:
    """Draw from a normal distribution cut off two standard deviations from its mean, by its inverse distribution.

    `nn.init.trunc_normal_` draws again until all values fit; it looks at values, which a fake tensor has none of.
    """
    bound = math.erf(math.sqrt(2.0))
    nn.init.uniform_(values, -bound, bound, generator)
    values.erfinv_().mul_(stddev * math.sqrt(2.0)).add_(mean)
    return values.clamp_(mean - 2 * stddev, mean + 2 * stddev)


class RandomNormal(RandomInitializer):
    """A normal distribution.

    Args:
        mean: its mean. Default 0.
        stddev: its standard deviation. Default 0.05.
        seed: an int for the same values at each call, or None.

    >>> values = initializers.RandomNormal(mean=3.0, stddev=0.01, seed=0)((100, 50))
    >>> values.shape
    torch.Size([100, 50])
    >>> values.mean().round(decimals=1)
    tensor(3.)
    """

    arguments = ("seed", "mean", "stddev")

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = mean
        self.stddev = stddev

    def _fill(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        return nn.init.normal_(values, self.mean, self.stddev, generator)


class TruncatedNormal(RandomNormal):
    """A normal distribution without the values more than two standard deviations from the mean.

    Args:
        mean: the mean. Default 0.
        stddev: the standard deviation before values are left out (0.88 times that after). Default 0.05.
        seed: an int for the same values at each call, or None.

    >>> values = initializers.TruncatedNormal(stddev=0.5, seed=0)((100, 50))
    >>> bool((values.abs() <= 1).all())  # two standard deviations
    True
    """

    def _fill(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        return _fill_truncated_normal(values, self.mean, self.stddev, generator)


class RandomUniform(RandomInitializer):
    """A uniform distribution.

    Args:
        minval: the smallest value. Default -0.05.
        maxval: the limit that values stay below. Default 0.05.
        seed: an int for the same values at each call, or None.

    >>> values = initializers.RandomUniform(minval=0.0, maxval=2.0, seed=0)((100, 50))
    >>> bool((values >= 0).all() and (values < 2).all())
    True
    """

    arguments = ("seed", "minval", "maxval")

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval = minval
        self.maxval = maxval

    def _fill(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        return nn.init.uniform_(values, self.minval, self.maxval, generator)


class Orthogonal(RandomInitializer):
    """`gain` times a matrix with orthonormal columns, or orthonormal rows when there are fewer of them.

    A shape of more than two axes is seen as the matrix (product of all but the last, last).
    From Saxe et al. 2014 (https://openreview.net/forum?id=_wzZwKpTDF_9C).

    Args:
        gain: the length of the columns or rows. Default 1.
        seed: an int for the same values at each call, or None.

    >>> rows = initializers.Orthogonal()((3, 5))
    >>> torch.allclose(rows @ rows.T, torch.eye(3), atol=1e-6)
    True
    """

    arguments = ("seed", "gain")

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def _fill(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        shape = values.shape
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs a shape of two axes or more, got shape={tuple(shape)}.")
        matrix = values.view(math.prod(shape[:-1]), shape[-1])
        nn.init.orthogonal_(matrix, self.gain, generator)
        return values


def compute_fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """Return `(fan_in, fan_out)` of a weight: how many inputs each output sums, and the other way round.

    Args:
        shape: in Keras' layout: (in, out), (*spatial, in, out), (size,) or ().
        input_axes: the axes of inputs, where the shape is another; goes with `output_axes`.
        output_axes: the axes of outputs.

    >>> initializers.compute_fans((4, 8))
    (4, 8)
    >>> initializers.compute_fans((3, 3, 16, 32))  # a kernel of 3 by 3, 16 channels in, 32 out
    (144, 288)
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


class VarianceScaling(RandomInitializer):
    """Random values whose variance is `scale / n`, with `n` read from the shape.

    A uniform distribution reaches from `-sqrt(3 * scale / n)` to `sqrt(3 * scale / n)`.

    Args:
        scale: a positive number. Default 1.
        mode: `n` is the "fan_in" (default), the "fan_out", or their mean, "fan_avg".
        distribution: "truncated_normal" (default; also "normal"), "untruncated_normal" or "uniform".
        seed: an int for the same values at each call, or None.
        input_axes: the axes that the fan-in is the product of; goes with `output_axes`. Default: Keras' layout.
        output_axes: the axes that the fan-out is the product of.

    Raises:
        ValueError: an argument is another.

    >>> values = initializers.VarianceScaling(scale=2.0, mode="fan_in", seed=0)((200, 300))
    >>> values.std().round(decimals=2)  # sqrt(2 / 200)
    tensor(0.1000)
    """

    arguments: ClassVar[tuple[str, ...]] = ("seed", "scale", "mode", "distribution", "input_axes", "output_axes")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        distribution = distribution.lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        if scale <= 0:
            raise ValueError(f"VarianceScaling: scale is a positive number, got {scale!r}.")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"VarianceScaling: mode is 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}.")
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                "VarianceScaling: distribution is 'truncated_normal', 'untruncated_normal' or 'uniform', "
                f"got {distribution!r}."
            )
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.input_axes = input_axes
        self.output_axes = output_axes

    def _fill(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        fan_in, fan_out = compute_fans(values.shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        stddev = math.sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            return values.uniform_(-limit, limit, generator=generator)
        if self.distribution == "untruncated_normal":
            return nn.init.normal_(values, 0.0, stddev, generator)
        # The standard deviation that a standard normal distribution has left when cut off at -2 and 2.
        return _fill_truncated_normal(values, 0.0, stddev / 0.87962566103423978, generator)


class _NamedScaling(VarianceScaling):
    """A `VarianceScaling` with fixed scale, mode and distribution.

    Args:
        seed: an int for the same values at each call, or None.
        input_axes: the axes that the fan-in is the product of; goes with `output_axes`. Default: Keras' layout.
        output_axes: the axes that the fan-out is the product of.
    """

    # Scale, mode and distribution.
    _scaling: ClassVar[tuple[float, str, str]]

    arguments = ("seed", "input_axes", "output_axes")

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self._scaling, seed, input_axes, output_axes)


class GlorotUniform(_NamedScaling):
    """Uniform within `sqrt(6 / (fan_in + fan_out))`, also called Xavier. Glorot and Bengio 2010.

    >>> values = initializers.GlorotUniform(seed=0)((2, 4))
    >>> bool((values.abs() <= 1).all())  # sqrt(6 / (2 + 4))
    True
    """

    _scaling = (1.0, "fan_avg", "uniform")


class GlorotNormal(_NamedScaling):
    """Truncated normal of variance `2 / (fan_in + fan_out)`, also called Xavier. Glorot and Bengio 2010.

    >>> values = initializers.GlorotNormal(seed=0)((100, 100))
    >>> values.std().round(decimals=2)  # sqrt(2 / 200)
    tensor(0.1000)
    """

    _scaling = (1.0, "fan_avg", "truncated_normal")


class LecunNormal(_NamedScaling):
    """Truncated normal of variance `1 / fan_in`, as `selu` wants it (https://arxiv.org/abs/1706.02515).

    >>> values = initializers.LecunNormal(seed=0)((100, 100))
    >>> values.std().round(decimals=2)  # sqrt(1 / 100)
    tensor(0.1000)
    """

    _scaling = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_NamedScaling):
    """Uniform within `sqrt(3 / fan_in)` (https://arxiv.org/abs/1706.02515).

    >>> values = initializers.LecunUniform(seed=0)((3, 4))
    >>> bool((values.abs() <= 1).all())  # sqrt(3 / 3)
    True
    """

    _scaling = (1.0, "fan_in", "uniform")


class HeNormal(_NamedScaling):
    """Truncated normal of variance `2 / fan_in`, as `relu` wants it (https://arxiv.org/abs/1502.01852).

    >>> values = initializers.HeNormal(seed=0)((200, 100))
    >>> values.std().round(decimals=2)  # sqrt(2 / 200)
    tensor(0.1000)
    """

    _scaling = (2.0, "fan_in", "truncated_normal")


class HeUniform(_NamedScaling):
    """Uniform within `sqrt(6 / fan_in)` (https://arxiv.org/abs/1502.01852).

    >>> values = initializers.HeUniform(seed=0)((6, 4))
    >>> bool((values.abs() <= 1).all())  # sqrt(6 / 6)
    True
    """

    _scaling = (2.0, "fan_in", "uniform")
