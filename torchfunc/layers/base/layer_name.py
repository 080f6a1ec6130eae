"""What a layer is called, in its model and in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchfunc.layers.base.call_arguments import bind_call
from torchfunc.registry import to_snake_case
from torchfunc.shards import own_class

__all__ = ["LayerName"]


class LayerName:
    """A name that the user, or the first model, gives.

    Attributes:
        has_explicit_name: whether the user gave it.
    """

    has_explicit_name: bool
    _name: str | None
    _init_arguments: tuple[Sequence[Any], Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The name given, or the one the first model gave, or the class' name in snake case."""
        return self._name or to_snake_case(own_class(type(self)).__name__)

    @name.setter
    def name(self, value: str) -> None:
        self._name, self.has_explicit_name = value, True

    @property
    def assigned_name(self) -> str | None:
        """The name that the user or a model gave the layer; None before it joins its first model."""
        return self._name

    def assign_name(self, name: str) -> None:
        """Give the layer a name that its user did not choose, as a model does for those without one."""
        self._name = name

    def extra_repr(self) -> str:
        """The arguments the layer was made with, those with a short repr."""
        return ", ".join(f"{name}={value!r}" for name, value in self._short_arguments())

    def _short_arguments(self) -> list[tuple[str, Any]]:
        args, kwargs = self._init_arguments
        given = bind_call(type(self).__init__, self, args, kwargs) if args or kwargs else {}
        return [item for item in given.items() if _is_short(item[1])]

    def describe(self) -> str:
        """`Dense 'dense_1' (units=64, activation='relu')`, for messages."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._short_arguments() if name != "name")
        return f"{own_class(type(self)).__name__} {self.name!r}" + (f" ({arguments})" if arguments else "")


def _is_short(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 4 and all(isinstance(item, (int, float, str, type(None))) for item in value)
    return isinstance(value, (int, float, str, torch.dtype))
