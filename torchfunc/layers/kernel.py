"""What layers share: KernelLayer (Dense and the convolutions), ActivationLast, and the checks of sizes and shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfunc import activations, constraints, initializers, regularizers
from torchfunc.graph import located
from torchfunc.layers.layer import Layer
from torchfunc.layers.shapes import is_shape
from torchfunc.layers.weights import Layout

__all__ = ["ActivationLast", "KernelLayer", "check_output_shape", "known_size", "positive", "promote_to_float"]


class ActivationLast(Layer):
    """A layer that ends in an activation. A subclass writes `_before_activation` instead of `call`.

    So a loss can have what went into a final softmax or sigmoid, and be computed from it.
    """

    activation: Callable[[Tensor], Tensor]

    def _before_activation(self, inputs: Tensor) -> Tensor:
        """What the activation is applied to."""
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        return self.activation(self._before_activation(inputs))


class KernelLayer(ActivationLast):
    """A layer with a kernel (`weight`), an optional bias (`bias`) and an activation.

    Args:
        activation: name, callable or module applied to the output; none by default.
        use_bias: whether to add a bias.
        kernel_initializer, bias_initializer: name, config or callable, on Keras' layout.
        kernel_regularizer, bias_regularizer: penalties on the weights that join the training loss.
        kernel_constraint, bias_constraint: projections applied to the weights after every update.
        **kwargs: of `Layer`.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def _add_kernel(self, shape: Sequence[int], units: int, layout: Layout) -> None:
        """Make the kernel, of `shape` in Keras' layout, and a bias for `units` outputs."""
        self.add_weight(
            shape,
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            layout=layout,
            names=("weight",),
        )
        if not self.use_bias:
            self.register_parameter("bias", None)
            return
        self.add_weight(
            (units,),
            self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            names=("bias",),
        )

    def _activation_config(self) -> dict[str, Any]:
        return {"activation": activations.serialize(self.activation), "use_bias": self.use_bias}

    def _kernel_config(self) -> dict[str, Any]:
        return {
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }


def known_size(shape: Sequence[int | None], axis: int, layer: Layer) -> int:
    """The size of an axis that a weight's shape depends on.

    Raises:
        ValueError: it is unknown.
    """
    size = shape[axis]
    if size is None:
        raise ValueError(
            located(
                f"The size of axis {axis} of the input of {layer.describe()} must be known, since its weights depend "
                f"on it, but the input's shape is {tuple(shape)}. Give the size to Input(...)."
            )
        )
    return size


def check_output_shape(layer: Layer, input_shape: Any) -> None:
    """Raise a ValueError that names the layer if it can make no output from this shape, or these shapes."""
    try:
        layer.compute_output_shape(input_shape)
    except ValueError as error:
        shape = tuple(input_shape) if is_shape(input_shape) else input_shape
        raise ValueError(located(f"{layer.describe()} cannot be called on {shape}: {error}")) from error


def positive(value: int, argument: str, owner: str) -> int:
    """A size given as an argument, as a Python integer.

    Raises:
        ValueError: it is not a positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
        raise ValueError(f"{owner} takes a positive integer for {argument}, got {value!r}.")
    return int(value)


def promote_to_float(dtype: torch.dtype, default: torch.dtype) -> torch.dtype:
    """The dtype of a mean or a scaled value: the input's if it is a float type, else the layer's."""
    return dtype if dtype.is_floating_point else default
