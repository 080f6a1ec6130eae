"""Layers that regularize training and do nothing in inference: dropouts, noise, ActivityRegularization.

Without a seed the numbers come from torch's generator, as `torch.manual_seed` sets it. A layer with a seed has its
own sequence, which starts again with every new layer of that seed. Its numbers are computed from the seed and
the count of calls, so they are the same on every device and under `torch.compile`, which takes no `torch.Generator`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc import regularizers
from torchfunc.config import standardize_data_format
from torchfunc.dtypes import dtype_name
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.elementwise import Elementwise
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.meta_weights import off_meta
from torchfunc.random.seeds import seeded_uniform

__all__ = [
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
]


class RandomLayer(Elementwise):
    """The base of layers that draw random numbers in training.

    Args:
        seed: an integer for reproducible numbers, or None for torch's generator.
        **kwargs: of `Layer`.
    """

    _calls: Tensor

    def __init__(self, seed: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ValueError(f"{type(self).__name__} takes an integer or None for seed, got {seed!r}.")
        self.seed = seed
        if seed is not None:
            with off_meta():
                self.register_buffer("_calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def _as_floats(self, inputs: Tensor) -> Tensor:
        """Integers in the layer's dtype: noise makes fractions of them."""
        return inputs if inputs.is_floating_point() else inputs.to(self.dtype)

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        """The next numbers of the seeded sequence, in (0, 1)."""
        assert self.seed is not None
        # A new tensor: a compiled backward may draw these numbers again from the old one.
        self._calls = self._calls + 1
        return seeded_uniform(self.seed, self._calls, shape)

    def _normal(self, inputs: Tensor) -> Tensor:
        """Standard normal numbers, one for each input."""
        if self.seed is None:
            return torch.randn_like(inputs)
        return (torch.erfinv(self._uniform(inputs.shape) * 2 - 1) * math.sqrt(2)).to(inputs.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "seed": self.seed}


class Dropout(RandomLayer):
    """Sets a share of the inputs to 0 in training and scales the others by `1 / (1 - rate)`.

    Shape: any, unchanged.

    Args:
        rate: the share to drop, in [0, 1].
        noise_shape: the shape of the random numbers, None for a size of the input; it is broadcast over axes of size 1,
            `(None, 1, None)` to drop the same features at all steps.
        seed: an integer, for reproducible numbers.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `rate` is not in [0, 1], or `noise_shape` contains anything but positive integers and None.

    >>> layer = layers.Dropout(0.5)
    >>> layer(torch.ones(1, 4), training=False)
    tensor([[1., 1., 1., 1.]])
    >>> sorted(set(layer(torch.ones(1, 100), training=True).flatten().tolist()))
    [0.0, 2.0]
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rate = _share(rate, "rate", type(self).__name__)
        self.noise_shape = _noise_shape(noise_shape, type(self).__name__)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        inputs = self._as_floats(inputs)
        shape = self._shape_to_draw(inputs)
        if shape is None and self.seed is None:
            return F.dropout(inputs, self.rate)
        return inputs * self._scales(inputs, inputs.shape if shape is None else shape)

    def _shape_to_draw(self, inputs: Tensor) -> Sequence[int] | None:
        """The shape of the noise; None for the input's own."""
        if self.noise_shape is None:
            return None
        if len(self.noise_shape) != inputs.ndim:
            raise ValueError(
                f"The noise_shape {self.noise_shape} of {self.describe()} has {len(self.noise_shape)} axes, but the "
                f"input's shape is {tuple(inputs.shape)}."
            )
        sizes = zip(self.noise_shape, inputs.shape, strict=True)
        return [size if fixed is None else fixed for fixed, size in sizes]

    def _scales(self, inputs: Tensor, shape: Sequence[int]) -> Tensor:
        """0 where something is dropped, `1 / (1 - rate)` elsewhere."""
        if self.seed is None:
            return F.dropout(inputs.new_ones(shape), self.rate)
        scale = 0.0 if self.rate == 1 else 1 / (1 - self.rate)
        return (self._uniform(shape) >= self.rate).to(inputs.dtype) * scale

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape}


class AlphaDropout(Dropout):
    """Dropout that preserves the mean and variance of outputs of `selu`. Shape: any, unchanged.

    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515.

    Args:
        rate, noise_shape, seed: see `Dropout`.
        **kwargs: of `Layer`.

    >>> layer = layers.AlphaDropout(0.1)
    >>> layer(torch.ones(1, 3), training=False)
    tensor([[1., 1., 1.]])
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        inputs = self._as_floats(inputs)
        shape = self._shape_to_draw(inputs)
        keep = self._scales(inputs, inputs.shape if shape is None else shape) != 0
        scale = ((1 - self.rate) * (1 + self.rate * _SELU_FLOOR**2)) ** -0.5
        return torch.where(keep, inputs, _SELU_FLOOR) * scale - scale * _SELU_FLOOR * self.rate


# The lower bound of selu: -alpha * scale.
_SELU_FLOOR = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946


class _SpatialDropout(Dropout):
    """Dropout of whole channels.

    Args:
        rate, seed: see `Dropout`.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: of `Layer`.
    """

    positions: int

    def __init__(self, rate: float, data_format: str | None, seed: int | None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = InputSpec(ndim=self.positions + 2)

    def _shape_to_draw(self, inputs: Tensor) -> Sequence[int]:
        ones = (1,) * self.positions
        if self.data_format == "channels_first":
            return (inputs.shape[0], inputs.shape[1], *ones)
        return (inputs.shape[0], *ones, inputs.shape[-1])

    def get_config(self) -> Config:
        return {
            "rate": self.rate,
            "seed": self.seed,
            "name": self.name,
            "dtype": dtype_name(self.dtype),
            "data_format": self.data_format,
        }


class SpatialDropout1D(_SpatialDropout):
    """Dropout of whole channels. Shape: `(batch, steps, channels)`, unchanged.

    Args:
        rate, seed: see `Dropout`.
        **kwargs: of `Layer`.

    >>> layer = layers.SpatialDropout1D(0.5)
    >>> kept = layer(torch.ones(1, 10, 3), training=True)
    >>> bool((kept == kept[:, :1]).all())  # whole channels are dropped
    True
    """

    positions = 1

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, "channels_last", seed, **kwargs)

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("data_format")
        return config


class SpatialDropout2D(_SpatialDropout):
    """Dropout of whole channels. Shape: `(batch, rows, columns, channels)` or channels first, unchanged.

    Args:
        rate, seed: see `Dropout`.
        data_format: "channels_last" or "channels_first"; `config.image_data_format()` by default.
        **kwargs: of `Layer`.

    >>> layers.SpatialDropout2D(0.5)(Input((8, 8, 3))).shape
    (None, 8, 8, 3)
    """

    positions = 2

    def __init__(self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, data_format, seed, **kwargs)


class SpatialDropout3D(SpatialDropout2D):
    """Dropout of whole channels. Shape: `(batch, depth, rows, columns, channels)` or channels first, unchanged.

    Args:
        rate, data_format, seed: see `SpatialDropout2D`.
        **kwargs: of `Layer`.

    >>> layers.SpatialDropout3D(0.5)(Input((8, 8, 8, 3))).shape
    (None, 8, 8, 8, 3)
    """

    positions = 3


class GaussianNoise(RandomLayer):
    """Adds normal noise with mean 0 in training. Shape: any, unchanged.

    Args:
        stddev: the noise's standard deviation, in [0, 1].
        seed: an integer, for reproducible numbers.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `stddev` is not between 0 and 1.

    >>> layer = layers.GaussianNoise(0.1)
    >>> layer(torch.ones(1, 3), training=False)
    tensor([[1., 1., 1.]])
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.stddev = _share(stddev, "stddev", "GaussianNoise")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or not self.stddev:
            return inputs
        inputs = self._as_floats(inputs)
        return inputs + self._normal(inputs) * self.stddev

    def get_config(self) -> Config:
        return {**super().get_config(), "stddev": self.stddev}


class GaussianDropout(RandomLayer):
    """Multiplies by normal noise with mean 1 in training. Shape: any, unchanged.

    Source: Srivastava et al. 2014, https://www.jmlr.org/papers/v15/srivastava14a.html.

    Args:
        rate: the rate of the dropout that has the same effect, in [0, 1): the noise's standard deviation is
            `sqrt(rate / (1 - rate))`.
        seed: an integer, for reproducible numbers.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `rate` is not in [0, 1).

    >>> layer = layers.GaussianDropout(0.1)
    >>> layer(torch.ones(1, 3), training=False)
    tensor([[1., 1., 1.]])
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.rate = _share(rate, "rate", "GaussianDropout")
        if rate == 1:
            raise ValueError("GaussianDropout takes a rate below 1, since noise for rate 1 would be infinite.")
        self._stddev = math.sqrt(rate / (1 - rate))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or not self.rate:
            return inputs
        inputs = self._as_floats(inputs)
        return inputs * (self._normal(inputs) * self._stddev + 1)

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate}


class ActivityRegularization(Elementwise):
    """Returns its input and adds a penalty on it to the training loss. Shape: any, unchanged.

    Args:
        l1: the weight of the sum of absolute values.
        l2: the weight of the sum of squares. Both sums are divided by the batch size.
        **kwargs: of `Layer`.

    >>> layer = layers.ActivityRegularization(l1=0.1)
    >>> layer(torch.tensor([[1.0, -2.0]]))
    tensor([[ 1., -2.]])
    >>> layer.losses
    [tensor(0.3000)]
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.l1 = l1
        self.l2 = l2

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("activity_regularizer")
        return {**config, "l1": self.l1, "l2": self.l2}


def _share(value: float, argument: str, owner: str) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{owner} takes a number between 0 and 1 for {argument}, got {value!r}.")
    return value


def _noise_shape(shape: Sequence[int | None] | None, owner: str) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    sizes = None if isinstance(shape, str) or not isinstance(shape, Sequence) else tuple(shape)
    if sizes is None or any(size is not None and (not isinstance(size, int) or size <= 0) for size in sizes):
        raise ValueError(f"{owner} takes positive integers and None for noise_shape, got {shape!r}.")
    return sizes
