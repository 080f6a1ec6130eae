"""Which argument of a layer's call gets which tensor, and which shapes `build` gets for them.

This is the one place that matches arguments with parameters of `call`, `build` and `compute_output_shape`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchfunc.graph import SymbolicTensor
from torchfunc.layers.base.shapes import Shape, Shapes

__all__ = [
    "accepts",
    "bind_call",
    "call_with_shapes",
    "parameter_names",
    "parameters_by_position",
    "parameters_of",
    "shapes_of",
]


@functools.cache
def _function_signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)


def _function(method: Callable[..., object]) -> Callable[..., object]:
    """The key under which signatures are cached, `self` included: a bound method would keep its layer alive."""
    return getattr(method, "__func__", method)


def _signature(method: Callable[..., object]) -> inspect.Signature:
    return _function_signature(_function(method))


@functools.cache
def _function_parameters(function: Callable[..., object]) -> tuple[str, ...]:
    return tuple(_function_signature(function).parameters)


@functools.cache
def _positional_parameters(function: Callable[..., object]) -> tuple[str, ...]:
    """The parameters if all can be given by position and by name, and all but the first two have defaults."""
    parameters = list(_function_signature(function).parameters.values())
    plain = all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in parameters)
    optional = all(each.default is not inspect.Parameter.empty for each in parameters[2:])
    return tuple(each.name for each in parameters) if plain and optional else ()


def parameters_of(function: Callable[..., object]) -> tuple[str, ...]:
    """The names in a function's signature; none for C functions, which may have no signature."""
    try:
        return _function_parameters(_function(function))
    except ValueError:
        return ()


def parameters_by_position(function: Callable[..., object]) -> tuple[str, ...]:
    """Those of them that can be given by position."""
    if not parameters_of(function):
        return ()
    parameters = _signature(function).parameters.values()
    return tuple(each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))


def accepts(function: Callable[..., object], parameter: str) -> bool:
    """Whether a function names `parameter` in its signature; False for C functions, which may have no signature."""
    return parameter in parameters_of(function)


def parameter_names(cls: type) -> list[str]:
    """The names that the `__init__`s of a class and its bases have for their arguments."""
    makers = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    return [name for maker in makers for name in inspect.signature(maker).parameters if name != "self"]


def bind_call(
    method: Callable[..., object], layer: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of `layer(*args, **kwargs)` by parameter name, as given (no defaults filled in).

    Raises:
        TypeError: as Python itself would, naming the layer.
    """
    if len(args) == 1 and not kwargs:
        names = _positional_parameters(_function(method))
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


def _shape_of(tensor: torch.Tensor | SymbolicTensor) -> Shape:
    return tuple(tensor.shape)


def shapes_of(
    arguments: Mapping[str, Any], shape: Callable[[torch.Tensor | SymbolicTensor], Shape] = _shape_of
) -> dict[str, Shapes]:
    """`{"<argument>_shape": shape}` for each argument that holds tensors; lists and dicts of them keep their form."""
    found = {}
    for name, value in arguments.items():
        shapes = _shapes(value, shape)
        if shapes is not None:
            found[f"{name}_shape"] = shapes
    return found


def _shapes(value: object, shape: Callable[[torch.Tensor | SymbolicTensor], Shape]) -> Shapes | None:
    """The shapes in an argument; None if anything in it is not a tensor."""
    if isinstance(value, (torch.Tensor, SymbolicTensor)):
        return shape(value)
    if isinstance(value, (list, tuple)):
        shapes = [_shapes(item, shape) for item in value]
        return shapes if shapes and None not in shapes else None
    if isinstance(value, dict):
        by_key = {key: _shapes(item, shape) for key, item in value.items()}
        return by_key if by_key and None not in by_key.values() else None
    return None


def call_with_shapes(method: Callable[..., Any], shapes: Mapping[str, Shapes]) -> Any:
    """Call a bound `build` or `compute_output_shape` with the first shape, or with the shapes it names."""
    parameters = _function_parameters(_function(method))
    named = {name: shape for name, shape in shapes.items() if name in parameters}
    if named:
        return method(**named)
    return method(next(iter(shapes.values()))) if shapes else method(None)
