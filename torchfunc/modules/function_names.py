"""Torch functions by name, so that a config can hold a recorded call. Only what is on the list is ever found.

The list is what `torch.overrides` says can be recorded, Python's operators, and the public methods of `torch.Tensor`
that do not work in place.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import get_overridable_functions, resolve_name

__all__ = ["check_method", "find_function", "function_name", "keras_operation", "torch_operation"]

_OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"),
    *("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "invert", "abs", "getitem"),
)


# Keras records operators (and those of its masks) as operations of these names; both sides take the same arguments.
_KERAS_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Subtract": operator.sub,
    "Multiply": operator.mul,
    "TrueDivide": operator.truediv,
    "FloorDivide": operator.floordiv,
    "Mod": operator.mod,
    "Power": operator.pow,
    "Matmul": operator.matmul,
    "Negative": operator.neg,
    "Absolute": operator.abs,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
    "Equal": torch.eq,
    "NotEqual": torch.ne,
}
_KERAS_NAMES = {function: name for name, function in _KERAS_OPERATIONS.items()}


def keras_operation(function: Any, name: str) -> dict[str, Any] | None:
    """The config, with that name, of the Keras operation that is this function, if there is one."""
    operation = _KERAS_NAMES.get(function)
    if operation is None:
        return None
    config = {"name": name}
    return {"module": "keras.src.ops.numpy", "class_name": operation, "config": config, "registered_name": operation}


def torch_operation(config: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The function that is the Keras operation of this config, if it is one.

    Raises:
        ValueError: it is a Keras operation that has no counterpart here.
    """
    if not str(config.get("module", "")).startswith("keras.src.ops."):
        return None
    if config["class_name"] not in _KERAS_OPERATIONS:
        raise ValueError(
            f"The config names the Keras operation {config['class_name']!r}, which is none of those that can be read: "
            f"{', '.join(_KERAS_OPERATIONS)}."
        )
    return _KERAS_OPERATIONS[config["class_name"]]


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
