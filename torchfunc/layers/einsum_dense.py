"""EinsumDense: a dense layer given as an einsum equation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc import initializers, regularizers
from torchfunc.layers.base.argument_types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
)
from torchfunc.layers.base.checks import check_output_shape, known_size, refuse
from torchfunc.layers.base.input_dtype import in_dtype_of
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.base.weighted_layer import KernelLayer

__all__ = ["EinsumDense"]


class EinsumDense(KernelLayer):
    """`activation(einsum(equation, inputs, kernel) + bias)`.

    Shape: given by the equation. `"abc,cd->abd"` makes `(batch, steps, units)` of `(batch, steps, features)`; an
    ellipsis, `"...c,cd->...d"` or `"ab...,bc->ac..."`, stands for any further axes.
    Parameters: `weight` and `bias`, with the axes of the equation.

    Args:
        equation: `"[input],[kernel]->[output]"`, in letters; the input and the output may both begin, or both end,
            with an ellipsis.
        output_shape: the sizes of the output, without the batch axis and the axes of the ellipsis: an integer or
            a tuple; None for a size that is the input's.
        activation: name, callable or module applied to the output; none by default.
        bias_axes: the letters of the output's axes that the bias has; no bias by default.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
        bias_constraint: see `KernelLayer`.
        lora_rank, lora_alpha, gptq_unpacked_column_size, quantization_config: must be None.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: the equation has another form, or names an axis that is nowhere else.

    >>> layers.EinsumDense("abc,cd->abd", output_shape=(None, 64), bias_axes="d")(Input((10, 32))).shape
    (None, 10, 64)
    """

    def __init__(
        self,
        equation: str,
        output_shape: int | Sequence[int | None],
        activation: ActivationLike = None,
        bias_axes: str | None = None,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        gptq_unpacked_column_size: int | None = None,
        quantization_config: object = None,
        **kwargs: Any,
    ) -> None:
        refuse(
            self,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            gptq_unpacked_column_size=gptq_unpacked_column_size,
            quantization_config=quantization_config,
        )
        weights = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(activation, bias_axes is not None, weights, **kwargs)
        self.equation = equation
        self.partial_output_shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        self.bias_axes = bias_axes
        self._terms = _Terms(equation, bias_axes)
        if len(self.partial_output_shape) != len(self._terms.given):
            raise ValueError(
                f"EinsumDense takes one size for each axis of the output of {equation!r} in output_shape, less the "
                f"batch axis, got {output_shape!r}."
            )
        for axis, size in zip(self._terms.given, self.partial_output_shape, strict=True):
            if size is None and axis not in self._terms.input:
                raise ValueError(
                    f"EinsumDense needs the size of axis {axis!r} of {equation!r} in output_shape, since the input has "
                    f"no such axis; got {output_shape!r}."
                )
        self.input_spec = InputSpec(min_ndim=len(self._terms.input) + self._terms.elided_first)

    def build(self, input_shape: Shape) -> None:
        check_output_shape(self, input_shape)
        sizes = self._sizes(input_shape)
        kernel, output = self._terms.kernel, self._terms.output
        for axis in kernel + (self.bias_axes or ""):
            sizes[axis] = sizes[axis] or known_size(input_shape, self._terms.position(axis, len(input_shape)), self)
        in_axes = [index for index, axis in enumerate(kernel) if axis not in output]
        out_axes = [index for index, axis in enumerate(kernel) if axis in output]
        self._make_weight(
            "kernel",
            [sizes[axis] for axis in kernel],
            "weight",
            initializer=_scaled_along(self.kernel_initializer, in_axes, out_axes),
        )
        self._make_bias(self._terms.bias_shape(sizes, len(input_shape)))
        self.input_spec = InputSpec(ndim=len(input_shape))

    def _sizes(self, input_shape: Shape) -> dict[str, Any]:
        """The size of each axis by its letter, None where unknown."""
        rank, terms = len(input_shape), self._terms
        sizes = {axis: input_shape[terms.position(axis, rank)] for axis in terms.input}
        for axis, size in zip(terms.given, self.partial_output_shape, strict=True):
            if size is not None and sizes.get(axis, size) not in (size, None):
                raise ValueError(
                    f"output_shape={self.partial_output_shape} says {size} for axis {axis!r} of {self.equation!r}, and "
                    f"the input's shape {tuple(input_shape)} says {sizes[axis]}"
                )
            sizes[axis] = sizes.get(axis) if size is None else size
        return sizes

    def before_activation(self, inputs: Tensor) -> Tensor:
        outputs = torch.einsum(self.equation, in_dtype_of(self.weight, inputs), self.weight)
        return outputs if self.bias is None else outputs + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sizes, rank = self._sizes(input_shape), len(input_shape)
        named = tuple(sizes[axis] for axis in self._terms.output)
        elided = rank - len(self._terms.input)
        if self._terms.elided_first:
            return (*input_shape[:elided], *named)
        return (*named, *input_shape[rank - elided :])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "output_shape": self.partial_output_shape,
            "equation": self.equation,
            "bias_axes": self.bias_axes,
            **{key: value for key, value in self._kernel_config().items() if key != "use_bias"},
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "quantization_config": None,
        }


class _Terms:
    """The axes of an equation: `input`, `kernel` and `output` as letters, and where an ellipsis stands."""

    def __init__(self, equation: str, bias_axes: str | None) -> None:
        found = re.fullmatch(r"(\.{3})?([a-zA-Z]+)(\.{3})?,([a-zA-Z]+)->(\.{3})?([a-zA-Z]+)(\.{3})?", equation)
        if found is None or found[1] != found[5] or found[3] != found[7] or (found[1] and found[3]):
            raise ValueError(
                f"EinsumDense takes an equation '[X],[Y]->[Z]', '...[X],[Y]->...[Z]' or '[X]...,[Y]->[Z]...' in "
                f"letters, got {equation!r}."
            )
        self.elided_first, self.elided_last = bool(found[1]), bool(found[3])
        self.input, self.kernel, self.output = found[2], found[4], found[6]
        # The axes whose sizes the user gives: without the batch axis, which is the first, or within the ellipsis.
        self.given = self.output if self.elided_first else self.output[1:]
        self.bias_axes = bias_axes
        for axis in self.output:
            if axis not in self.input + self.kernel:
                raise ValueError(f"Axis {axis!r} of the output of {equation!r} is neither in the input nor the kernel.")
        for axis in self.kernel:
            if axis not in self.input + self.output:
                raise ValueError(f"Axis {axis!r} of the kernel of {equation!r} is neither in the input nor the output.")
        for axis in bias_axes or "":
            if axis not in self.output:
                raise ValueError(f"bias_axes={bias_axes!r} names axis {axis!r}, which {equation!r} does not give.")

    def position(self, axis: str, rank: int) -> int:
        """Where an axis of the input is, in an input of this rank."""
        elided = rank - len(self.input) if self.elided_first else 0
        return self.input.index(axis) + elided

    def bias_shape(self, sizes: Mapping[str, Any], rank: int) -> list[Any]:
        """The bias begins with the first of its axes; those it has not are 1, so that it broadcasts."""
        first = min((self.output.index(axis) for axis in self.bias_axes or ""), default=len(self.output))
        named = [sizes[axis] if axis in (self.bias_axes or "") else 1 for axis in self.output[first:]]
        return named + [1] * (rank - len(self.input) if self.elided_last else 0)


def _scaled_along(
    initializer: Callable[..., Tensor], input_axes: list[int], output_axes: list[int]
) -> Callable[..., Tensor]:
    """The initializer; one that scales by fan-in or fan-out with the axes of the kernel that count for these."""
    if not isinstance(initializer, initializers.VarianceScaling):
        return initializer
    if None not in (initializer.input_axes, initializer.output_axes):
        return initializer
    config = {**initializer.get_config(), "input_axes": input_axes, "output_axes": output_axes}
    return type(initializer).from_config(config)
