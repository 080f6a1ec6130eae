"""The arguments that the author of a model class added to those of a drawn model: part of its config and copies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchfunc.graph import contains_symbolic
from torchfunc.layers.base.call_arguments import accepts, bind_call

__all__ = ["accepted", "draws_itself", "own_arguments"]

# What every model takes; configs write these by themselves.
_COMMON = ("name", "trainable", "dtype")


def own_arguments(
    model: object, args: Sequence[Any], kwargs: Mapping[str, Any], drawn_from: Sequence[str]
) -> dict[str, Any]:
    """The arguments by name that a model was made with, without those that others like it take.

    None are known of a class whose `__init__` takes `*args`.
    """
    init = type(model).__init__
    kinds = [parameter.kind for parameter in inspect.signature(init).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return {}
    given = bind_call(init, model, args, kwargs)
    known = {*_COMMON, *drawn_from}
    return {name: value for name, value in given.items() if name not in known and not contains_symbolic((value,), {})}


def draws_itself(init: Callable[..., Any], drawn_from: Sequence[str]) -> bool:
    """Whether an `__init__` takes none of what its base draws the model from, but other arguments to draw it itself."""
    kinds = [parameter.kind for parameter in inspect.signature(init).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL not in kinds and not all(accepts(init, name) for name in drawn_from)


def accepted(init: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that an `__init__` takes."""
    kinds = [parameter.kind for parameter in inspect.signature(init).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return dict(arguments)
    return {name: value for name, value in arguments.items() if accepts(init, name)}
