"""Projection: the linear maps to the heads of an attention layer and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc.layers.base.argument_types import RoleArguments
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.layers.base.weighted_layer import WeightedLayer
from torchfunc.layers.base.weights import Layout

__all__ = ["Projection"]


class Projection(WeightedLayer):
    """A linear map of the last axis, whose outputs may be spread over several axes.

    Shape: `(batch, ..., inputs)` -> `(batch, ..., *outputs)`.
    Parameters: `weight` (outputs, inputs) and `bias` (outputs,), as in `torch.nn.Linear`; Keras has them as
    `(*inputs, *outputs)` and `(*outputs,)`.

    Args:
        inputs, outputs: the sizes as Keras has them; the last axis of the input is all of `inputs` flattened.
        use_bias: whether to add a bias.
        weights: see `WeightedLayer`.
        activation: applied to the output; none by default.
        **kwargs: of `Layer`.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        use_bias: bool,
        weights: Mapping[str, RoleArguments],
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(weights, **kwargs)
        self.activation = activation
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        kernel_shape = (*inputs, *outputs)
        self._make_weight("kernel", kernel_shape, "weight", _matrix_layout(kernel_shape, math.prod(inputs)))
        self._make_weight("bias", self._outputs, "bias", _vector_layout(self._outputs), used=use_bias)
        self.built = True

    def extra_repr(self) -> str:
        return f"{self._inputs} -> {self._outputs}"

    def call(self, inputs: Tensor) -> Tensor:
        output = F.linear(in_dtype_of(self.weight, inputs), self.weight, self.bias)
        return self.spread(output if self.activation is None else self.activation(output))

    def spread(self, output: Tensor) -> Tensor:
        """The last axis as all axes of the outputs, of which there are but some heads if the layer is split by them."""
        return output if len(self._outputs) == 1 else output.unflatten(-1, (-1, *self._outputs[1:]))


def _matrix_layout(shape: tuple[int, ...], inputs: int) -> Layout:
    return Layout(functools.partial(_to_matrix, inputs), functools.partial(_from_matrix, shape))


def _vector_layout(shape: tuple[int, ...]) -> Layout:
    return Layout(_to_vector, functools.partial(_from_vector, shape))


# Functions with names, not lambdas: layers are pickled with their layouts.
def _to_matrix(inputs: int, tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.reshape(inputs, -1).t().contiguous(),)


def _from_matrix(shape: tuple[int, ...], tensor: Tensor) -> Tensor:
    return tensor.t().reshape(shape)


def _to_vector(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.reshape(-1),)


def _from_vector(shape: tuple[int, ...], tensor: Tensor) -> Tensor:
    return tensor.reshape(shape)
