"""Rescaling and Normalization: numbers on another scale."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import epsilon, image_data_format
from torchfunc.graph import located
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import known_size
from torchfunc.layers.base.elementwise import Elementwise
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.weights import Layout
from torchfunc.layers.preprocessing.adapting import batches
from torchfunc.meta_weights import off_meta
from torchfunc.registry import deserialize_keras_object, serialize_keras_object

__all__ = ["Normalization", "Rescaling"]


class Rescaling(Elementwise):
    """`inputs * scale + offset` in floats. Shape: any, unchanged.

    Args:
        scale: a number, or one for each channel.
        offset: a number, or one for each channel. Channels are the last axis, or the third from the end if
            `config.image_data_format()` is "channels_first" when the layer is made.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `scale` or `offset` is neither a number nor a list or array of numbers.

    >>> layers.Rescaling(1 / 127.5, offset=-1)(torch.tensor([0, 255]))
    tensor([-1.,  1.])
    """

    _scale: float | Tensor
    _offset: float | Tensor

    def __init__(
        self,
        scale: float | Sequence[float] | np.ndarray,
        offset: float | Sequence[float] | np.ndarray = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self._set_values("_scale", scale)
        self._set_values("_offset", offset)

    def _set_values(self, name: str, value: float | Sequence[float] | np.ndarray) -> None:
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.asarray("ragged")
        if array.dtype.kind not in "iuf":
            raise ValueError(f"Rescaling takes a number or a list of numbers for {name[1:]}, got {value!r}.")
        if array.ndim == 0:
            setattr(self, name, float(array))
            return
        tensor = torch.from_numpy(array).to(self.dtype)
        if image_data_format() == "channels_first" and array.ndim == 1:
            tensor = tensor.view(-1, 1, 1)
        self.register_buffer(name, tensor, persistent=False)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.dtype) * self._scale + self._offset

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "scale": serialize_keras_object(self.scale),
            "offset": serialize_keras_object(self.offset),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rescaling:
        return cls(
            **{
                key: deserialize_keras_object(config[key]) if key in ("scale", "offset") else config[key]
                for key in config
            }
        )


class Normalization(Elementwise):
    """`(inputs - mean) / sqrt(variance)`: numbers with mean 0 and variance 1.

    Shape: any, unchanged; dtype: the layer's.

    Call `adapt(data)` before training to learn mean and variance, or give them. Learned ones are buffers, `mean` and
    `variance`, with as many axes as the input has; None until the layer is built.

    Args:
        axis: the axis, or several, that have a mean and a variance for each index; None for one of all numbers.
        mean, variance: a number, or values that broadcast to the sizes of `axis`; both or neither.
        invert: whether to do the opposite, `inputs * sqrt(variance) + mean`.
        **kwargs: of `Layer`.

    Raises:
        ValueError: only one of mean and variance is given, or their shapes differ or do not fit `axis`.

    >>> layer = layers.Normalization()
    >>> layer.adapt(np.array([[1.0], [3.0]]))
    >>> layer(torch.tensor([[1.0], [5.0]])).flatten().round(decimals=4)
    tensor([-1.,  3.])
    """

    mean: Tensor | None
    variance: Tensor | None

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        if not all(isinstance(each, int) for each in self.axis):
            raise ValueError(f"Normalization takes an integer, several, or None for axis, got {axis!r}.")
        if (mean is None) != (variance is None):
            raise ValueError(f"Normalization takes both or neither of mean and variance, got {mean} and {variance}.")
        if np.shape(mean) != np.shape(variance) or np.ndim(mean) > len(self.axis):
            raise ValueError(
                f"Normalization takes mean and variance of one shape, with at most {len(self.axis)} axes for "
                f"axis={self.axis}, got {np.shape(mean)} and {np.shape(variance)}."
            )
        self.input_mean = mean
        self.input_variance = variance
        self.invert = bool(invert)
        self.register_buffer("mean", None)
        self.register_buffer("variance", None)

    def build(self, input_shape: Shape) -> None:
        rank = len(input_shape)
        if any(not -rank <= axis < rank for axis in self.axis):
            raise ValueError(
                located(f"{self.describe()} has axis={self.axis}, but its input's shape is {tuple(input_shape)}.")
            )
        axes = sorted({axis % rank for axis in self.axis})
        sizes = {axis: known_size(input_shape, axis, self) for axis in axes}
        # From the first of these axes on, so that axes counted from the end fit inputs of any rank.
        self._broadcast_shape = [sizes.get(axis, 1) for axis in range(min(axes, default=rank), rank)]
        full = (1,) * (rank - len(self._broadcast_shape)) + tuple(self._broadcast_shape)
        shape = tuple(sizes.values())
        if self.input_mean is None:
            # Keras' weights have the sizes of `axis` only.
            layout = Layout(functools.partial(_reshape_one, shape=full), functools.partial(torch.reshape, shape=shape))
            self.add_weight(shape, "zeros", trainable=False, layout=layout, names=("mean",), keras_name="adapt_mean")
            self.add_weight(
                shape, "ones", trainable=False, layout=layout, names=("variance",), keras_name="adapt_variance"
            )
            # Keras has it, from older days, and its files with it.
            self.add_weight((), "zeros", "int32", trainable=False, names=("count",))
        else:
            for name, value in (("mean", self.input_mean), ("variance", self.input_variance)):
                with off_meta():
                    tensor = torch.as_tensor(np.asarray(value), dtype=self.dtype)
                try:
                    self.register_buffer(name, tensor.broadcast_to(shape).reshape(full).clone(), persistent=False)
                except RuntimeError:
                    raise ValueError(
                        located(
                            f"{self.describe()} has a {name} of shape {tuple(tensor.shape)}, which does not fit the "
                            f"sizes {shape} of axis={self.axis} of its input, {tuple(input_shape)}."
                        )
                    ) from None
        from_the_end = all(axis < 0 for axis in self.axis)
        self.input_spec = InputSpec(
            ndim=None if from_the_end else rank,
            min_ndim=len(self._broadcast_shape),
            axes={axis: sizes[axis % rank] for axis in self.axis},
        )

    def adapt(self, data: np.ndarray | Tensor | Iterable[Any]) -> None:
        """Learn mean and variance from data, again at each call.

        Args:
            data: an array or tensor, or a DataLoader or another iterable of batches.

        Raises:
            TypeError: `data` is something else.
            ValueError: the layer was given its mean, there is no data, or a batch does not fit the layer or the others.
        """
        if self.input_mean is not None:
            raise ValueError(f"{self.describe()} has the mean and variance it was given; there is nothing to adapt.")
        count, mean, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for batch in batches(data, "Normalization"):
            if batch.numel() == 0:
                continue
            if self.built:
                self._check_input({"inputs": batch})
            else:
                self.build_from_shapes({"input_shape": tuple(batch.shape)})
            own = {axis % batch.ndim for axis in self.axis}
            reduced = [axis for axis in range(batch.ndim) if axis not in own]
            variance, average = torch.var_mean(batch, reduced, correction=0) if reduced else (batch * 0, batch)
            size = batch.numel() // average.numel()
            # Two sets of numbers as one: Chan et al. 1979, "Updating formulae ... for computing sample variances".
            difference, total = average - mean, count + size
            squares = squares + variance * size + difference**2 * count * size / total
            mean = mean + difference * size / total
            count = total
        if count == 0:
            raise ValueError(f"{self.describe()} cannot adapt to data without any sample.")
        with torch.no_grad():
            for kept, learned in zip(self._statistics(), (mean, squares / count), strict=True):
                kept.copy_(learned.view(kept.shape))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, variance = self.mean, self.variance
        assert mean is not None
        assert variance is not None
        return mean, variance

    def call(self, inputs: Tensor) -> Tensor:
        mean, variance = self._statistics()
        mean, variance = mean.view(self._broadcast_shape), variance.view(self._broadcast_shape)
        scale = variance.sqrt().clamp(min=epsilon())
        inputs = inputs.to(self.dtype)
        return inputs * scale + mean if self.invert else (inputs - mean) / scale

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "axis": self.axis,
            "invert": self.invert,
            "mean": np.asarray(self.input_mean).tolist(),
            "variance": np.asarray(self.input_variance).tolist(),
        }


def _reshape_one(tensor: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    return (tensor.reshape(shape),)
