"""When two calls of torch's own modules are alike, so that what is known of one is true of the other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from torchfunc.graph.node import Args, Kwargs, SymbolicValue
from torchfunc.graph.torch_internals import GLOBAL_HOOKS

__all__ = ["call_signature", "function_signature"]

_PLAIN = (type(None), bool, int, float, str, type(Ellipsis), torch.dtype, torch.device)


class _NotPlain(Exception):
    """Something that a key cannot stand for."""


def call_signature(module: nn.Module, args: Args, kwargs: Kwargs) -> Hashable | None:
    """A key that is equal for two calls only if they return the same shapes and dtypes; None if there is none.

    The forward of a module in `torch.nn` that holds no other module depends on its arguments, its attributes and its
    weights, and, of a weight, no shape depends on more than the weight's shape, dtype and device. With hooks,
    arguments that hold data, or attributes that are objects, one cannot be so sure.
    """
    kind = type(module)
    own = kind.__module__.startswith("torch.nn.modules.") and not module._modules
    if not own or _is_autocast() or any(GLOBAL_HOOKS):
        return None
    try:
        state = tuple((name, _attribute(value)) for name, value in module.__dict__.items())
        options = tuple((name, _argument(value)) for name, value in kwargs.items())
        return kind, kind.forward, state, _argument(tuple(args)), options
    except _NotPlain:
        return None


def function_signature(target: Callable[..., Any] | str, args: Args, kwargs: Kwargs) -> Hashable | None:
    """The same for a function of torch or of `operator`, or a tensor method by name."""
    own = isinstance(target, (str, BuiltinFunctionType)) or getattr(target, "__module__", "") == "torch.nn.functional"
    if not own or _is_autocast():
        return None
    try:
        options = tuple((name, _argument(value)) for name, value in kwargs.items())
        return target, torch.get_default_dtype(), _argument(tuple(args)), options
    except _NotPlain:
        return None


def _is_autocast() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _argument(value: Any) -> Hashable:
    """An argument of the call: plain, or of a symbolic value what is known of it."""
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_argument, value))
    if isinstance(value, slice):
        return slice, _argument((value.start, value.stop, value.step))
    return value.spec if isinstance(value, SymbolicValue) else _plain(value)


def _attribute(value: Any) -> Hashable:
    """An attribute of a module; of its weights what is known of tensors, and of dicts of hooks that they are empty."""
    if isinstance(value, Mapping):
        return tuple((name, _tensor(each)) for name, each in value.items())
    return tuple(sorted(value)) if isinstance(value, set) else _plain(value)


def _tensor(value: Any) -> Hashable:
    if value is None:
        return None
    if not isinstance(value, torch.Tensor) or isinstance(value, (UninitializedBuffer, UninitializedParameter)):
        raise _NotPlain
    return type(value), tuple(value.shape), value.dtype, value.device


def _plain(value: Any) -> Hashable:
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_plain, value))
    if type(value) not in _PLAIN:
        raise _NotPlain
    # Since 1 == 1.0 == True.
    return type(value), value
