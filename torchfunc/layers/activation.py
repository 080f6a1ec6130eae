"""Activations as layers: any by name (Activation), and those with arguments or weights of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc import activations
from torchfunc.graph import located
from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import check_output_shape, known_size
from torchfunc.layers.base.elementwise import Elementwise
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape, differ
from torchfunc.layers.base.weighted_layer import ActivationLast, WeightedLayer

__all__ = ["ELU", "Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax"]


class Activation(ActivationLast, Elementwise):
    """An activation function as a layer. Shape: any, unchanged.

    Args:
        activation: name, callable or module.
        **kwargs: of `Layer`.

    >>> layers.Activation("relu")(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, activation: ActivationLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation  # type: ignore[assignment]

    def before_activation(self, inputs: Tensor) -> Tensor:
        return inputs

    def get_config(self) -> Config:
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class ReLU(Elementwise):
    """`max(x, 0)`, or a variant given by the arguments: see `activations.relu`. Shape: any, unchanged.

    Args:
        max_value: the largest value returned; no limit by default.
        negative_slope: the slope below the threshold.
        threshold: where the linear part begins.
        **kwargs: of `Layer`.

    Raises:
        ValueError: a number is negative.

    >>> layers.ReLU(max_value=6.0)(torch.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else _not_negative(max_value, "max_value", "ReLU")
        self.negative_slope = _not_negative(negative_slope, "negative_slope", "ReLU")
        self.threshold = _not_negative(threshold, "threshold", "ReLU")

    def call(self, inputs: Tensor) -> Tensor:
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


class LeakyReLU(Elementwise):
    """`x` where it is positive, `negative_slope * x` elsewhere. Shape: any, unchanged.

    Args:
        negative_slope: the slope below 0. `alpha`, as older code calls it, is taken too.
        **kwargs: of `Layer`.

    Raises:
        ValueError: the slope is negative.

    >>> layers.LeakyReLU(negative_slope=0.5)(torch.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        negative_slope = kwargs.pop("alpha", negative_slope)
        super().__init__(**kwargs)
        self.negative_slope = _not_negative(negative_slope, "negative_slope", "LeakyReLU")

    def call(self, inputs: Tensor) -> Tensor:
        return activations.leaky_relu(inputs, self.negative_slope)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(super().compute_output_dtype(*input_dtypes), self.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "negative_slope": self.negative_slope}


class PReLU(WeightedLayer, Elementwise):
    """`x` where it is positive, `alpha * x` elsewhere, with a learned `alpha`. Shape: any, unchanged.

    Parameters: `weight`, one for each value of a sample: the input's shape without the batch axis, 1 for shared axes.

    Args:
        alpha_initializer, alpha_regularizer, alpha_constraint: of `alpha`, see `WeightedLayer`.
        shared_axes: the axes (1 is the first behind the batch axis) along which `alpha` is the same: `[1, 2]` for
            images with the channels last, to learn one for each channel. Sizes of the others must be known.
        **kwargs: of `Layer`.

    Raises:
        ValueError: a shared axis is no axis of the input, or the batch axis.

    >>> layer = layers.PReLU(alpha_initializer=initializers.Constant(0.5))
    >>> layer(torch.tensor([[-1.0, 2.0]])).tolist()
    [[-0.5, 2.0]]
    """

    weight: nn.Parameter

    def __init__(
        self,
        alpha_initializer: InitializerLike = "Zeros",
        alpha_regularizer: RegularizerLike = None,
        alpha_constraint: ConstraintLike = None,
        shared_axes: Sequence[int] | int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({"alpha": (alpha_initializer, alpha_regularizer, alpha_constraint)}, **kwargs)
        axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes
        if axes is not None and not all(isinstance(axis, int) and axis != 0 for axis in axes):
            raise ValueError(
                f"PReLU takes axes behind the batch axis (1, 2 ... or -1 ...) for shared_axes, got {shared_axes!r}."
            )
        self.shared_axes = None if axes is None else list(axes)

    def build(self, input_shape: Shape) -> None:
        rank = len(input_shape)
        if any(not -rank < axis < rank for axis in self.shared_axes or ()):
            raise ValueError(
                f"{self.describe()} has shared_axes={self.shared_axes}, but its input's shape is {tuple(input_shape)}."
            )
        shared = {axis % rank for axis in self.shared_axes or ()}
        sizes = {axis: known_size(input_shape, axis, self) for axis in range(1, rank) if axis not in shared}
        self._make_weight("alpha", [sizes.get(axis, 1) for axis in range(1, rank)], "weight")
        self.input_spec = InputSpec(ndim=rank, axes=sizes)

    def call(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs > 0, inputs, self.weight * inputs)

    def get_config(self) -> Config:
        return {**super().get_config(), **self._weights_config(), "shared_axes": self.shared_axes}


class ELU(Elementwise):
    """`x` where it is positive, `alpha * (exp(x) - 1)` elsewhere. Shape: any, unchanged.

    Args:
        alpha: minus the lower bound.
        **kwargs: of `Layer`.

    >>> layers.ELU()(torch.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, inputs: Tensor) -> Tensor:
        return activations.elu(inputs, self.alpha)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(super().compute_output_dtype(*input_dtypes), self.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "alpha": self.alpha}


class Softmax(Elementwise):
    """`exp(x) / sum(exp(x))` along an axis, or several together. Shape: any, unchanged.

    Args:
        axis: the axis, or a list of axes that are normalised together.
        **kwargs: of `Layer`.

    Call arguments:
        mask: a tensor that broadcasts to the input; masked positions get 0, and the others sum to 1.

    Raises:
        ValueError: the input has no such axis, or the mask does not broadcast to it.

    >>> layers.Softmax()(torch.tensor([[1.0, 1.0, 5.0]]), mask=torch.tensor([[True, True, False]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        axes = (axis,) if isinstance(axis, int) else axis
        if not axes or not all(isinstance(each, int) for each in axes):
            raise ValueError(f"Softmax takes an integer or a list of integers for axis, got {axis!r}.")
        self.axis = axis
        self._axes = tuple(axes)

    def build(self, input_shape: Shape) -> None:
        check_output_shape(self, input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if any(not -len(input_shape) <= axis < len(input_shape) for axis in self._axes):
            raise ValueError(f"it has no axis {self.axis}")
        return tuple(input_shape)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            self._check_mask(inputs, mask)
            mask = mask if mask.dtype == torch.bool else mask > 0.5
            # As in Keras, a finite value: where all is masked, nothing becomes NaN.
            inputs = torch.where(mask, inputs, -3e4 if inputs.dtype == torch.float16 else -1e9)
        outputs = activations.softmax(inputs, self._axes if len(self._axes) > 1 else self._axes[0])
        return outputs if mask is None else torch.where(mask, outputs, 0.0)

    def _check_mask(self, inputs: Any, mask: Any) -> None:
        sizes, given = tuple(inputs.shape), tuple(mask.shape)
        fits = len(given) <= len(sizes) and all(
            size == 1 or not differ([size], [own]) for size, own in zip(given[::-1], sizes[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                located(
                    f"{self.describe()} takes a mask that broadcasts to its input {sizes}, got one of shape {given}."
                )
            )

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(super().compute_output_dtype(*input_dtypes), self.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "axis": self.axis}


def _not_negative(value: float, argument: str, owner: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{owner} takes a number that is not negative for {argument}, got {value!r}.")
    return value
