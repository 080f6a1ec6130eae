"""AffineLayer: the scale and the shift after a normalization; and checks of the normalized axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.layers.base.argument_types import Config, RoleArguments
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.weighted_layer import WeightedLayer

__all__ = ["AffineLayer", "as_axis", "check_axes"]


class AffineLayer(WeightedLayer):
    """A layer that scales (`weight`, Keras' gamma) and shifts (`bias`, beta) the normalized values.

    Args:
        center, scale: whether there is a beta, a gamma.
        weights: of the roles "beta" and "gamma", see `WeightedLayer`.
        **kwargs: of `Layer`.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    axis: int | list[int]

    def __init__(self, center: bool, scale: bool, weights: Mapping[str, RoleArguments], **kwargs: Any) -> None:
        super().__init__(weights, **kwargs)
        self.center = bool(center)
        self.scale = bool(scale)

    def _make_affine(self, shape: Sequence[int], center: bool, scale: bool) -> None:
        self._make_weight("gamma", shape, "weight", used=scale)
        self._make_weight("beta", shape, "bias", used=center)

    def _as_float(self, inputs: Tensor) -> Tensor:
        """Inputs in the precision to normalize in: half precision is too small for sums, and weights have their own."""
        weight = self.bias if self.weight is None else self.weight
        if inputs.dtype is torch.float64 and weight is not None:
            return inputs.to(weight.dtype)
        return inputs.to(torch.promote_types(inputs.dtype, self.dtype))

    def _affine_for(self, values: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The scale and the shift in the precision of the values, which the kernels need both in one."""
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if weight is not None and weight.dtype != values.dtype:
            # A model in half precision; the values are in the layer's own.
            weight = weight.to(values.dtype)
        if bias is not None and bias.dtype != values.dtype:
            bias = bias.to(values.dtype)
        return weight, bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        check_axes(self.axis, tuple(input_shape))
        return tuple(input_shape)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(input_dtypes[0], self.dtype) if input_dtypes else self.dtype

    def _affine_config(self) -> Config:
        return {"center": self.center, "scale": self.scale, **self._weights_config()}


def as_axis(axis: Any, owner: str) -> int | list[int]:
    """An `axis` argument: an integer, or a list of integers.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(axis, int) and not isinstance(axis, bool):
        return axis
    if isinstance(axis, (list, tuple)) and axis and all(isinstance(each, int) for each in axis):
        return list(axis)
    raise TypeError(f"{owner} takes an integer or a list of integers for axis, got {axis!r}.")


def check_axes(axis: int | Sequence[int], shape: Shape) -> tuple[int, ...]:
    """The axes of an input, in their order and none of them negative.

    Raises:
        ValueError: the input has no such axis, or one is named twice.
    """
    rank = len(shape)
    axes = [axis] if isinstance(axis, int) else axis
    if not all(-rank <= each < rank for each in axes):
        raise ValueError(f"axis={axis} is out of range for an input of shape {shape}")
    found = tuple(sorted(each % rank for each in axes))
    if len(set(found)) < len(found):
        raise ValueError(f"axis={axis} names an axis of an input of shape {shape} twice")
    return found
