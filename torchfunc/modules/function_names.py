"""Keras' operations by name: the torch functions that a config of Keras' calls otherwise."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchfunc.graph import Node

__all__ = [
    "OPERATIONS_MODULE",
    "is_keras_operation",
    "keras_arguments",
    "keras_operation",
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
# Those whose axis Keras has in the operation's config, and torch among the arguments of a method.
_WITH_AXIS = {"Any": "any", "All": "all", "ExpandDims": "unsqueeze"}
_KERAS_NAMES = {function: name for name, function in _KERAS_OPERATIONS.items()}


def is_keras_operation(name: str) -> bool:
    """Whether this is the class of one of the Keras operations that can be read."""
    return name in _KERAS_OPERATIONS


def keras_operation(node: Node, name: str) -> dict[str, Any] | None:
    """The config, with that name, of the Keras operation that a call is one of, if there is one."""
    config: dict[str, Any] = {"name": name}
    operation = _KERAS_NAMES.get(node.target)
    if operation is None:
        operation = next((each for each, method in _WITH_AXIS.items() if _takes_axis(node, method)), None)
        if operation is None:
            return None
        config |= {"axis": node.args[1]} if operation == "ExpandDims" else {"axis": node.args[1], "keepdims": False}
    return {"module": OPERATIONS_MODULE, "class_name": operation, "config": config, "registered_name": operation}


def keras_arguments(node: Node) -> list[Any]:
    """The positional arguments of a call that `keras_operation` does not have in the config."""
    if any(_takes_axis(node, method) for method in _WITH_AXIS.values()):
        return [node.args[0]]
    if node.target is operator.getitem and isinstance(node.args[1], tuple):
        # Keras takes no tuple here, but a list for one.
        return [node.args[0], list(node.args[1])]
    return list(node.args)


def _takes_axis(node: Node, method: str) -> bool:
    is_method = node.op == "method" and node.target == method
    return is_method and len(node.args) == 2 and isinstance(node.args[1], int) and not node.kwargs


def torch_operation(config: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The kind and the target of the call that is the Keras operation of this config, if it is one.

    Raises:
        ValueError: it is a Keras operation that has no counterpart here.
    """
    if not str(config.get("module", "")).startswith("keras.src.ops."):
        return None
    name = config["class_name"]
    if name in _WITH_AXIS:
        return "method", _WITH_AXIS[name]
    if name not in _KERAS_OPERATIONS:
        raise ValueError(
            f"The config names the Keras operation {name!r}, which is none of those that can be read: "
            f"{', '.join([*_KERAS_OPERATIONS, *_WITH_AXIS])}."
        )
    return "function", _KERAS_OPERATIONS[name]


def torch_arguments(config: Mapping[str, Any], args: Sequence[Any]) -> list[Any]:
    """The positional arguments of the call, where Keras' config says more, or JSON has made a list of a tuple."""
    if config["class_name"] in _WITH_AXIS:
        axis, keeps = config["config"]["axis"], config["config"].get("keepdims", False)
        return [*args, axis, keeps] if keeps else [*args, axis]
    if config["class_name"] == "GetItem" and isinstance(args[1], list):
        return [args[0], tuple(args[1])]
    return list(args)
