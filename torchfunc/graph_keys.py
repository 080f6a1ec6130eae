"""Graph keys: what a compiled step takes for constants, so that another key needs another graph.

Layers, optimizers, losses and metrics tell theirs by a method `graph_key()`. It is made of what stands here.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

__all__ = ["graph_key_of", "is_known_code", "settings_key"]

# The packages whose code changes nothing between two steps that is not in a graph key.
_KNOWN = {"builtins", "collections", "math", "numpy", "operator", "torch", "torchfunc", "_operator"}


def settings_key(owner: Any, ignored: Collection[str] = (), public_only: bool = False) -> Hashable | None:
    """The graph key of an object whose settings are its attributes: all numbers, booleans and strings among them.

    Args:
        owner: the object.
        ignored: names of attributes that no step reads.
        public_only: whether only public attributes are settings.

    Returns:
        a tuple; None if the object, or what it directly holds (an activation, say), is of a class or function that is
        neither torchfunc's nor torch's: such code may read anything, so torch.compile's guards have to stay.
    """
    if not is_known_code(owner):
        return None
    key = []
    for name, value in vars(owner).items():
        if name in ignored:
            continue
        if isinstance(value, (bool, int, float, str)):
            if not (public_only and name.startswith("_")):
                key.append(value)
        else:
            items = value.values() if isinstance(value, dict) else value
            if not all(map(is_known_code, items if isinstance(value, (dict, list, tuple)) else (value,))):
                return None
    return tuple(key)


def graph_key_of(module: nn.Module) -> Hashable | None:
    """The graph key of any module: what `graph_key` returns if it has one, else its settings."""
    graph_key = getattr(module, "graph_key", None)
    return settings_key(module) if graph_key is None else graph_key()


def is_known_code(value: Any) -> bool:
    """Whether this is torchfunc's, torch's, NumPy's or Python's own: a class or function, or of such a class."""
    home = value.__module__ if isinstance(value, (FunctionType, BuiltinFunctionType, type)) else type(value).__module__
    return home is None or home.partition(".")[0] in _KNOWN
