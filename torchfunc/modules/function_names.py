"""Keras' operations by name: the torch functions that a config of Keras' calls otherwise."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["OPERATIONS_MODULE", "is_keras_operation", "keras_operation", "torch_operation"]

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
}
_KERAS_NAMES = {function: name for name, function in _KERAS_OPERATIONS.items()}


def is_keras_operation(name: str) -> bool:
    """Whether this is the class of one of the Keras operations that can be read."""
    return name in _KERAS_OPERATIONS


def keras_operation(function: Any, name: str) -> dict[str, Any] | None:
    """The config, with that name, of the Keras operation that is this function, if there is one."""
    operation = _KERAS_NAMES.get(function)
    if operation is None:
        return None
    config = {"name": name}
    return {"module": OPERATIONS_MODULE, "class_name": operation, "config": config, "registered_name": operation}


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
