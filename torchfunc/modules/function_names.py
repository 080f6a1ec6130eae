"""Keras' operations by name: the torch functions that a config of Keras' calls otherwise."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from torchfunc.dtypes import as_dtype, dtype_name
from torchfunc.graph import Node

__all__ = [
    "OPERATIONS_MODULE",
    "is_keras_operation",
    "keras_arguments",
    "keras_operation",
    "keras_options",
    "torch_arguments",
    "torch_operation",
]

OPERATIONS_MODULE = "keras.src.ops.numpy"

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
    "GetItem": operator.getitem,
    "LogicalAnd": torch.logical_and,
    "LogicalOr": torch.logical_or,
}


class _Configured(NamedTuple):
    """A call some of whose arguments Keras has in the operation's config.

    Attributes:
        op, target: the call, as a node has them.
        options: what Keras calls them, with the default, in the order in which they are behind the others.
    """

    op: str
    target: Any
    options: Mapping[str, Any]


_REDUCING = {"axis": None, "keepdims": False}
_CONFIGURED = {
    "Any": _Configured("method", "any", _REDUCING),
    "All": _Configured("method", "all", _REDUCING),
    "ExpandDims": _Configured("method", "unsqueeze", {"axis": None}),
    "Concatenate": _Configured("function", torch.cat, {"axis": 0}),
    "ZerosLike": _Configured("function", torch.zeros_like, {"dtype": None}),
    "OnesLike": _Configured("function", torch.ones_like, {"dtype": None}),
}
_KERAS_NAMES = {function: name for name, function in _KERAS_OPERATIONS.items()}


def is_keras_operation(name: str) -> bool:
    """Whether this is the class of one of the Keras operations that can be read."""
    return name in _KERAS_OPERATIONS


def keras_operation(node: Node, name: str) -> dict[str, Any] | None:
    """The config, with that name, of the Keras operation that a call is one of, if there is one."""
    operation, options = _KERAS_NAMES.get(node.target), {}
    if operation is None:
        operation = next((each for each, call in _CONFIGURED.items() if _is_call(node, call)), None)
        if operation is None:
            return None
        options = _options_of(node, _CONFIGURED[operation])
    config = {"name": name, **options}
    return {"module": OPERATIONS_MODULE, "class_name": operation, "config": config, "registered_name": operation}


def keras_arguments(node: Node) -> list[Any]:
    """The positional arguments of a call that `keras_operation` does not have in the config."""
    if any(_is_call(node, call) for call in _CONFIGURED.values()):
        return [node.args[0]]
    if node.target is operator.getitem and isinstance(node.args[1], tuple):
        # Keras takes no tuple here, but a list for one.
        return [node.args[0], list(node.args[1])]
    return list(node.args)


def keras_options(node: Node) -> dict[str, Any]:
    """The arguments by keyword that `keras_operation` does not have in the config."""
    return {} if any(_is_call(node, call) for call in _CONFIGURED.values()) else dict(node.kwargs)


def _is_call(node: Node, call: _Configured) -> bool:
    """Whether the node makes this call with arguments that the config can have."""
    if node.op != call.op or node.target != call.target:
        return False
    if "dtype" in call.options:
        return len(node.args) == 1 and node.kwargs.keys() <= {"dtype"}
    return len(node.args) == 2 and isinstance(node.args[1], int) and not node.kwargs


def _options_of(node: Node, call: _Configured) -> dict[str, Any]:
    if "dtype" in call.options:
        dtype = node.kwargs.get("dtype")
        return {"dtype": None if dtype is None else dtype_name(dtype)}
    return {**call.options, "axis": node.args[1]}


def torch_operation(config: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The kind and the target of the call that is the Keras operation of this config, if it is one.

    Raises:
        ValueError: it is a Keras operation that has no counterpart here.
    """
    if not str(config.get("module", "")).startswith("keras.src.ops."):
        return None
    name = config["class_name"]
    if name in _CONFIGURED:
        return _CONFIGURED[name].op, _CONFIGURED[name].target
    if name not in _KERAS_OPERATIONS:
        raise ValueError(
            f"The config names the Keras operation {name!r}, which is none of those that can be read: "
            f"{', '.join([*_KERAS_OPERATIONS, *_CONFIGURED])}."
        )
    return "function", _KERAS_OPERATIONS[name]


def torch_arguments(
    config: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the call, where Keras' config says more, or JSON has made a list of a tuple."""
    name, options = config["class_name"], config["config"]
    if name in _CONFIGURED:
        found = {key: options.get(key, default) for key, default in _CONFIGURED[name].options.items()}
        if "dtype" in found:
            return list(args), {} if found["dtype"] is None else {"dtype": as_dtype(found["dtype"])}
        if not found.get("keepdims", True):
            del found["keepdims"]
        return [*args, *found.values()], {}
    if name == "GetItem" and isinstance(args[1], list):
        return [args[0], tuple(args[1])], dict(kwargs)
    return list(args), dict(kwargs)
