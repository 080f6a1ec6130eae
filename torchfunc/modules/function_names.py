"""Torch functions by name, so that a config can hold a recorded call. Only what is on the list is ever found.

The list is what `torch.overrides` says can be recorded, Python's operators, and the public methods of `torch.Tensor`
that do not work in place.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import get_overridable_functions, resolve_name

__all__ = ["check_method", "find_function", "function_name"]

_OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"),
    *("lt", "le", "gt", "ge", "neg", "pos", "invert", "abs", "getitem"),
)


@functools.cache
def _functions() -> dict[str, Callable[..., Any]]:
    """The recordable functions by dotted name."""
    found: dict[str, Callable[..., Any]] = {f"operator.{name}": getattr(operator, name) for name in _OPERATORS}
    found["builtins.getattr"] = _get_property
    for namespace, functions in get_overridable_functions().items():
        if namespace is torch.Tensor:
            continue
        for function in functions:
            name = resolve_name(function)
            if name is not None and not name.endswith("_"):
                found.setdefault(name, function)
    return found


def _get_property(tensor: Any, name: str) -> Any:
    """`tensor.T` and its kin: the properties of a tensor, and nothing else of it."""
    check_method(name)
    return getattr(tensor, name)


def function_name(function: Callable[..., Any]) -> str:
    """The dotted name of a recordable function.

    Raises:
        ValueError: it is not on the list.
    """
    if function is getattr:
        return "builtins.getattr"
    if getattr(operator, getattr(function, "__name__", ""), None) is function:
        return f"operator.{function.__name__}"
    name = resolve_name(function)
    if name is None or _functions().get(name) is not function:
        raise ValueError(f"{function!r} cannot be written to a config: it is not a function of torch.")
    return name


def find_function(name: str) -> Callable[..., Any]:
    """The function a config names.

    Raises:
        ValueError: it is not on the list.
    """
    if name == "builtins.getattr":
        return getattr
    if name not in _functions():
        raise ValueError(f"The config names the function {name!r}, which is not one that a graph may call.")
    return _functions()[name]


def check_method(name: str) -> str:
    """`name`, if it is a public method or property of tensors that does not work in place; else a ValueError."""
    if name.startswith("_") or name.endswith("_") or not hasattr(torch.Tensor, name):
        raise ValueError(f"The config names the tensor method {name!r}, which is not one that a graph may call.")
    return name
