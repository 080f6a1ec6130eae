"""The specs of a layer's outputs, from a formula for their shapes, and their dtypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from torchfunc.graph import Spec, SymbolicTensor, example_shapes, located, symbolic_tensors
from torchfunc.layers.base.call_arguments import call_with_shapes, shapes_of
from torchfunc.layers.base.shapes import Shape, Shapes, is_shape, map_shapes

__all__ = ["Specs", "promote_to_float", "specs_by_formula"]

# A `Spec` or a constant, or nested lists, tuples and dicts of them, as the call returns its outputs.
Specs: TypeAlias = Any


def specs_by_formula(
    formula: Callable[..., Shapes],
    arguments: Mapping[str, Any],
    dtype: torch.dtype,
    describe: Callable[[], str],
) -> Specs:
    """The outputs of a call, from the shapes of its arguments.

    Args:
        formula: returns the outputs' shapes for the arguments' shapes, as `compute_output_shape` does.
        arguments: of the call, by name.
        dtype: of the outputs.
        describe: returns the name of the layer for an error.

    Raises:
        ValueError: the formula refuses these shapes.
    """
    try:
        shapes = call_with_shapes(formula, shapes_of(arguments))
    except (ValueError, IndexError) as error:
        found = ", ".join(str(tensor.shape) for tensor in symbolic_tensors(arguments))
        raise ValueError(located(f"{describe()} cannot be called on {found}: {error}")) from error
    # Most layers have one output, and a graph is drawn of many layers.
    single = is_shape(shapes)
    first, second = (_example_output(formula, arguments, trial, shapes, single) for trial in (0, 1))
    if single:
        return Spec(tuple(shapes), dtype, (first, second))
    return map_shapes(lambda shape, a, b: Spec(shape, dtype, (a, b)), shapes, first, second)


def _example_output(
    formula: Callable[..., Shapes], arguments: Mapping[str, Any], trial: int, shapes: Shapes, single: bool
) -> Shapes:
    """The outputs' shapes for the inputs' example shapes; where no formula fits them, any that fit `shapes`."""

    def example(tensor: torch.Tensor | SymbolicTensor) -> Shape:
        return tensor.spec.examples[trial] if isinstance(tensor, SymbolicTensor) else tuple(tensor.shape)

    def choose(shape: Shape, found: Shape) -> Shape:
        return found if None not in found else example_shapes(shape)[trial]

    try:
        found = call_with_shapes(formula, shapes_of(arguments, example))
        return choose(tuple(shapes), tuple(found)) if single else map_shapes(choose, shapes, found)
    except ValueError:
        return map_shapes(lambda shape: example_shapes(shape)[trial], shapes)


def promote_to_float(dtype: torch.dtype, default: torch.dtype) -> torch.dtype:
    """The dtype of a mean or a scaled value: the input's if it is a float type, else the layer's."""
    return dtype if dtype.is_floating_point else default
