"""Binding: which argument of a layer's call gets which tensor, and what shapes `build` is told of.

This is the one place that matches arguments with parameters of `call`, `build` and `compute_output_shape`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from torchfunc.graph import SymbolicTensor

__all__ = [
    "Shape",
    "accepts",
    "bind_call",
    "call_with_shapes",
    "declared_input_shape",
    "differ",
    "is_shape",
    "map_shapes",
    "merge_shapes",
    "shapes_of",
]

Shape: TypeAlias = "tuple[int | None, ...]"


@functools.cache
def _function_signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _function(method: Callable[..., Any]) -> Callable[..., Any]:
    """What signatures are remembered by, `self` included: a bound method would keep its layer alive."""
    return getattr(method, "__func__", method)


def _signature(method: Callable[..., Any]) -> inspect.Signature:
    return _function_signature(_function(method))


@functools.cache
def _function_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(_function_signature(function).parameters)


@functools.cache
def _only_positional(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters if all can be given by position and by name, and all but the first two have defaults."""
    parameters = list(_function_signature(function).parameters.values())
    plain = all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in parameters)
    optional = all(each.default is not inspect.Parameter.empty for each in parameters[2:])
    return tuple(each.name for each in parameters) if plain and optional else ()


def accepts(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function names `parameter` in its signature; what is written in C may have none to look at."""
    try:
        return parameter in _function_parameters(_function(function))
    except ValueError:
        return False


def bind_call(
    method: Callable[..., Any], layer: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of `layer(*args, **kwargs)` by parameter name, as given (no defaults filled in).

    Raises:
        TypeError: as Python itself would, naming the layer.
    """
    if len(args) == 1 and not kwargs:
        names = _only_positional(_function(method))
        if len(names) > 1:
            return {names[1]: args[0]}
    try:
        bound = _signature(method).bind(layer, *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{type(layer).__name__} {getattr(layer, 'name', '')!r} was called wrongly: {error}.") from None
    arguments = dict(list(bound.arguments.items())[1:])
    for name, parameter in _signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    return arguments


def shapes_of(
    arguments: Mapping[str, Any], shape: Callable[[Any], tuple[int | None, ...]] = lambda tensor: tuple(tensor.shape)
) -> dict[str, Any]:
    """`{"<argument>_shape": shape}` for each argument that holds tensors; lists and dicts of them keep their form."""
    found = {}
    for name, value in arguments.items():
        shapes = _shapes(value, shape)
        if shapes is not None:
            found[f"{name}_shape"] = shapes
    return found


def _shapes(value: Any, shape: Callable[[Any], tuple[int | None, ...]]) -> Any:
    if isinstance(value, (torch.Tensor, SymbolicTensor)):
        return shape(value)
    if isinstance(value, (list, tuple)):
        shapes = [_shapes(item, shape) for item in value]
        return shapes if shapes and None not in shapes else None
    if isinstance(value, dict):
        by_key = {key: _shapes(item, shape) for key, item in value.items()}
        return by_key if by_key and None not in by_key.values() else None
    return None


def call_with_shapes(method: Callable[..., Any], shapes: Mapping[str, Any]) -> Any:
    """Call a bound `build` or `compute_output_shape` with the first shape, or with the shapes it names."""
    parameters = _function_parameters(_function(method))
    named = {name: shape for name, shape in shapes.items() if name in parameters}
    if named:
        return method(**named)
    return method(next(iter(shapes.values()))) if shapes else method(None)


def declared_input_shape(kwargs: dict[str, Any]) -> tuple[int | None, ...] | None:
    """Take the arguments old guides give a first layer out of `kwargs`; return the batch shape they mean."""
    input_dim = kwargs.pop("input_dim", None)
    shape = kwargs.pop("input_shape", (input_dim,) if input_dim is not None else None)
    batch_shape = kwargs.pop("batch_input_shape", kwargs.pop("batch_shape", None))
    if batch_shape is not None:
        return tuple(batch_shape)
    return None if shape is None else (None, *shape)


def is_shape(value: Any) -> bool:
    """Whether `value` is one shape, and not a list of them."""
    return isinstance(value, (tuple, list, torch.Size)) and all(size is None or isinstance(size, int) for size in value)


def differ(first: Sequence[int | None], second: Sequence[int | None]) -> bool:
    """Whether two shapes cannot be the same, whatever their unknown sizes turn out to be."""
    return len(first) != len(second) or any(
        a != b for a, b in zip(first, second, strict=True) if a is not None and b is not None
    )


def map_shapes(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Apply `function` to each shape of a structure of shapes, beside the same place of the other structures."""
    if first is None:
        return None
    if is_shape(first):
        return function(*(None if shape is None else tuple(shape) for shape in (first, *others)))
    if isinstance(first, Mapping):
        return {key: map_shapes(function, first[key], *(other[key] for other in others)) for key in first}
    mapped = [map_shapes(function, *items) for items in zip(first, *others, strict=True)]
    return tuple(mapped) if isinstance(first, tuple) else mapped


def merge_shapes(first: Any, second: Any) -> Any:
    """What two structures of shapes have in common: None where the sizes differ."""
    return map_shapes(
        lambda a, b: tuple(x if x == y else None for x, y in zip(a, b, strict=True)),
        first,
        second,
    )
