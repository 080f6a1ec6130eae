"""Torch functions by name, so that a config can hold them. Only what is on the list is ever found.

The list is what `torch.overrides` says can be recorded, Python's operators, and the public methods of `torch.Tensor`
that do not work in place and return tensors.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import get_overridable_functions, resolve_name

from torchfunc.assignable import VARIABLE_NAMES

__all__ = ["check_method", "find_function", "function_name"]

_OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"),
    *("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "invert", "abs", "getitem"),
)
# Functions for one kind of hardware, which trust what they are given more than others do.
_LEFT_OUT = ("torch.fbgemm_", "torch.miopen_", "torch.quantized_", "torch.cudnn_", "torch.mkldnn_")
# Methods that change something, return no tensor, or reach the memory behind one.
_NOT_CALLED = {
    *("as_subclass", "backward", "const_data_ptr", "data_ptr", "grad", "grad_fn", "is_set_to", "item", "module_load"),
    *("new", "numpy", "pin_memory", "record_stream", "register_hook", "register_post_accumulate_grad_hook"),
    *VARIABLE_NAMES,
    *("reinforce", "resize", "resize_as", "retain_grad", "storage", "storage_type", "tolist", "untyped_storage"),
}


@functools.cache
def _functions() -> dict[str, Callable[..., Any]]:
    """The recordable functions by dotted name."""
    found: dict[str, Callable[..., Any]] = {f"operator.{name}": getattr(operator, name) for name in _OPERATORS}
    for namespace, functions in get_overridable_functions().items():
        if namespace is torch.Tensor:
            continue
        for function in functions:
            name = resolve_name(function)
            if name is None or name.endswith("_") or name.startswith(_LEFT_OUT) or isinstance(function, type):
                continue
            if isinstance(getattr(function, "__name__", None), str):
                found.setdefault(name, function)
    return found


@functools.cache
def _names() -> dict[Callable[..., Any], str]:
    # (The first name of a function that has several.)
    return {function: name for name, function in reversed(_functions().items())}


def function_name(function: Callable[..., Any]) -> str:
    """The dotted name of a recordable function.

    Raises:
        ValueError: it is not on the list.
    """
    if function is getattr:
        return "builtins.getattr"
    name = _names().get(function)
    if name is None:
        raise ValueError(f"{function!r} cannot be written to a config: it is not a function of torch.")
    return name


def is_listed(function: Callable[..., Any]) -> bool:
    """Whether this is a recordable function, and `function_name` gives its name."""
    return function in _names()


def find_function(name: str) -> Callable[..., Any]:
    """The function a config names. `getattr` is one; what it may read of a tensor is for `check_method` to say.

    Raises:
        ValueError: it is not on the list.
    """
    if name == "builtins.getattr":
        return getattr
    if not isinstance(name, str) or name not in _functions():
        raise ValueError(f"The config names the function {name!r}, which is not one that a graph may call.")
    return _functions()[name]


def check_method(name: str) -> str:
    """`name`, if it is a public method or property of tensors that does not work in place; else a ValueError."""
    listed = isinstance(name, str) and not name.startswith("_") and not name.endswith("_") and name not in _NOT_CALLED
    if not listed or not hasattr(torch.Tensor, name):
        raise ValueError(f"The config names the tensor method {name!r}, which is not one that a graph may call.")
    return name
