"""Normalizations that know no batch: LayerNormalization, RMSNormalization, GroupNormalization, UnitNormalization."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc.layers.base.argument_types import Config, ConstraintLike, InitializerLike, RegularizerLike
from torchfunc.layers.base.checks import check_output_shape, known_size
from torchfunc.layers.base.elementwise import Elementwise
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.normalization.affine import AffineLayer, as_axis, check_axes

__all__ = ["GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization"]


class LayerNormalization(AffineLayer):
    """`gamma * (inputs - mean) / sqrt(variance + epsilon) + beta`, with mean and variance of each sample.

    Source: Ba et al. 2016, https://arxiv.org/abs/1607.06450.

    Shape: `(batch, ...)`, unchanged. Inputs that are not floats are converted.
    Parameters: `weight` (gamma) and `bias` (beta), of the sizes of the axes, as in `torch.nn.LayerNorm`.

    Args:
        axis: the axis or axes to take mean and variance over, whose sizes must be known; and that gamma and beta have.
        epsilon: added to the variance.
        center, scale: whether there is a beta, a gamma.
        beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint:
            of the weights, see `WeightedLayer`.
        rms_scaling: deprecated in Keras: `gamma * inputs / sqrt(variance + epsilon)`, which is not the root mean
            square. `RMSNormalization` is.
        **kwargs: of `Layer`.

    Raises:
        TypeError: `axis` is neither an integer nor a list of them.

    >>> layers.LayerNormalization()(torch.tensor([[1.0, 3.0]])).round(decimals=2).tolist()
    [[-1.0, 1.0]]
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        rms_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        weights = {
            "beta": (beta_initializer, beta_regularizer, beta_constraint),
            "gamma": (gamma_initializer, gamma_regularizer, gamma_constraint),
        }
        super().__init__(center, scale, weights, **kwargs)
        self.axis = as_axis(axis, "LayerNormalization")
        self.epsilon = epsilon
        self.rms_scaling = bool(rms_scaling)
        if rms_scaling:
            warnings.warn(
                "LayerNormalization(rms_scaling=True) divides by the standard deviation, not by the root mean square, "
                "and is deprecated. Use RMSNormalization.",
                stacklevel=2,
            )

    def build(self, input_shape: Shape) -> None:
        self._sizes, self.axis = _known_axes(self, self.axis, input_shape)
        self._make_affine(self._sizes, self.center and not self.rms_scaling, self.scale or self.rms_scaling)

    def call(self, inputs: Tensor) -> Tensor:
        values, order = _axes_last(self._as_float(inputs), self.axis)
        if self.rms_scaling:
            assert self.weight is not None
            variance = values.var(tuple(range(-len(self._sizes), 0)), correction=0, keepdim=True)
            output = values * torch.rsqrt(variance + self.epsilon) * self.weight
        else:
            output = F.layer_norm(values, self._sizes, *self._affine_for(values), self.epsilon)
        return _axes_back(output, order).to(promote_to_float(inputs.dtype, self.dtype))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "axis": self.axis,
            "epsilon": self.epsilon,
            "rms_scaling": self.rms_scaling,
            **self._affine_config(),
        }


class RMSNormalization(Layer):
    """`weight * inputs / sqrt(mean of squares + epsilon)`, with the mean of each sample.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467.

    Shape: `(batch, ...)`, unchanged. Inputs that are not floats are converted. As in Keras, a mask is not passed on.
    Parameter: `weight`, of the sizes of the axes, as in `torch.nn.RMSNorm`.

    Args:
        axis: the axis or axes to take the mean over, whose sizes must be known; and that `weight` has.
        epsilon: added to the mean.
        **kwargs: of `Layer`.

    Raises:
        TypeError: `axis` is neither an integer nor a list of them.

    >>> layers.RMSNormalization()(torch.tensor([[1.0, 7.0]])).detach().round(decimals=2)  # by 5
    tensor([[0.2000, 1.4000]])
    """

    weight: nn.Parameter

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = as_axis(axis, "RMSNormalization")
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        self._sizes, self.axis = _known_axes(self, self.axis, input_shape)
        self.add_weight(self._sizes, "ones", names=("weight",), keras_name="scale")

    def call(self, inputs: Tensor) -> Tensor:
        wide = self.weight.dtype if inputs.dtype is torch.float64 else torch.promote_types(inputs.dtype, self.dtype)
        values, order = _axes_last(inputs.to(wide), self.axis)
        output = F.rms_norm(values, self._sizes, self.weight, self.epsilon)
        return _axes_back(output, order).to(promote_to_float(inputs.dtype, self.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        check_axes(self.axis, tuple(input_shape))
        return tuple(input_shape)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(input_dtypes[0], self.dtype) if input_dtypes else self.dtype

    def get_config(self) -> Config:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


class GroupNormalization(AffineLayer):
    """LayerNormalization of groups of channels, each over all positions; gamma and beta are of the channels.

    Source: Wu and He 2018, https://arxiv.org/abs/1803.08494.

    Shape: `(batch, ...)`, unchanged. Inputs that are not floats are converted.
    Parameters: `weight` (gamma) and `bias` (beta), both (channels,), as in `torch.nn.GroupNorm`.

    Args:
        groups: how many groups of channels; -1 for a group for each (instance normalization).
        axis: the axis of the channels, whose size must be known.
        epsilon: added to the variance.
        center, scale: whether there is a beta, a gamma.
        beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint:
            of the weights, see `WeightedLayer`.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `groups` is neither -1 nor a positive integer, or on the first call, does not divide the channels.
        TypeError: `axis` is no integer.

    >>> layers.GroupNormalization(groups=2)(torch.tensor([[1.0, 3.0, 10.0, 30.0]])).round(decimals=2).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """

    supports_masking = True
    axis: int

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        **kwargs: Any,
    ) -> None:
        weights = {
            "beta": (beta_initializer, beta_regularizer, beta_constraint),
            "gamma": (gamma_initializer, gamma_regularizer, gamma_constraint),
        }
        super().__init__(center, scale, weights, **kwargs)
        if isinstance(groups, bool) or not isinstance(groups, int) or (groups < 1 and groups != -1):
            raise ValueError(f"GroupNormalization takes a positive integer or -1 for groups, got {groups!r}.")
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"GroupNormalization takes an integer for axis, got {axis!r}.")
        self.groups = groups
        self.axis = axis
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        check_output_shape(self, input_shape)
        channels = known_size(input_shape, self.axis, self)
        # As in Keras, the config of a built layer contains the number.
        self.groups = channels if self.groups == -1 else self.groups
        self._make_affine((channels,), self.center, self.scale)
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})

    def call(self, inputs: Tensor) -> Tensor:
        # The kernel needs the channels at axis 1: a view, which it reads in memory order.
        values = self._as_float(inputs).movedim(self.axis, 1)
        if torch.is_grad_enabled() and not values.requires_grad:
            # The backward pass of torch 2.11 and 2.13 crashes on channels-last inputs that need no gradient.
            values = values.contiguous()
        # Its backward pass fails with a bias alone (torch 2.13).
        weight, bias = self._affine_for(values)
        weight = torch.ones_like(bias) if weight is None and bias is not None else weight
        output = F.group_norm(values, self.groups, weight, bias, self.epsilon).movedim(1, self.axis)
        return output.to(promote_to_float(inputs.dtype, self.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = super().compute_output_shape(input_shape)
        channels = shape[self.axis]
        if self.axis % len(shape) == 0:
            raise ValueError(f"axis={self.axis} is the batch of an input of shape {shape}, not its channels")
        if channels is not None and self.groups != -1 and channels % self.groups:
            raise ValueError(f"groups={self.groups} must divide the {channels} channels of an input of shape {shape}")
        return shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "groups": self.groups,
            "axis": self.axis,
            "epsilon": self.epsilon,
            **self._affine_config(),
        }


class UnitNormalization(Elementwise):
    """Scales each sample to an L2 norm of 1 over some axes. Shape: any, unchanged. Zeros stay zeros.

    Args:
        axis: the axis or axes the norm is taken over.
        **kwargs: of `Layer`.

    Raises:
        TypeError: `axis` is neither an integer nor a list of them.

    >>> layers.UnitNormalization()(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = as_axis(axis, "UnitNormalization")

    def build(self, input_shape: Shape) -> None:
        check_output_shape(self, input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(promote_to_float(inputs.dtype, self.dtype))
        return inputs / torch.linalg.vector_norm(inputs, dim=self.axis, keepdim=True).clamp_min(1e-12)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        check_axes(self.axis, tuple(input_shape))
        return tuple(input_shape)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(input_dtypes[0], self.dtype) if input_dtypes else self.dtype

    def get_config(self) -> Config:
        return {**super().get_config(), "axis": self.axis}


def _known_axes(layer: Layer, axis: int | list[int], input_shape: Shape) -> tuple[tuple[int, ...], list[int]]:
    """The sizes of the axes, and the axes as a list, as the config of a built layer has them in Keras."""
    check_output_shape(layer, input_shape)
    sizes = tuple(known_size(input_shape, each, layer) for each in check_axes(axis, tuple(input_shape)))
    axes = [axis] if isinstance(axis, int) else sorted(axis)
    layer.input_spec = InputSpec(axes={each: input_shape[each] for each in axes})
    return sizes, axes


def _axes_last(inputs: Tensor, axis: int | list[int]) -> tuple[Tensor, tuple[int, ...] | None]:
    """A view with these axes last, where the kernels need them; and the permutation, None if there is none."""
    axes = check_axes(axis, tuple(inputs.shape))
    if axes == tuple(range(inputs.ndim - len(axes), inputs.ndim)):
        return inputs, None
    order = (*(each for each in range(inputs.ndim) if each not in axes), *axes)
    return inputs.permute(order), order


def _axes_back(output: Tensor, order: tuple[int, ...] | None) -> Tensor:
    return output if order is None else output.permute([order.index(axis) for axis in range(output.ndim)])
