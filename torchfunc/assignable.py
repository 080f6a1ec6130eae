"""Tensors that answer as Keras' variables do: `assign`, `assign_add`, `assign_sub`, `value`, `numpy()`, `path`.

What people's own layers and metrics make answers so. It takes part in no `__torch_function__`, and results of
operations are plain tensors. A parameter keeps its class when it is copied or moved; for what else torch makes anew,
its owner calls `make_assignable` again. torch does not take it in two places: `nn.Parameter(weight)`, which
parametrizations call, wants a plain one, and so does `torch.export` where a layer's `call` assigns.

So the weights of built-in layers stay torch's own; Keras' names of them show views that answer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = [
    "Assignable",
    "AssignableParameter",
    "AssignableState",
    "Named",
    "assignable_view",
    "is_parameter",
    "make_assignable",
]


class Named(Protocol):
    """What a weight belongs to: a layer or a metric."""

    @property
    def name(self) -> str: ...


# Beside the tensors: attributes of theirs would be pickled and copied with them.
_places: Any = WeakTensorKeyDictionary()


class Assignable:
    """What both have in common, beside torch's own class."""

    def assign(self: Any, value: Any) -> Any:
        """Write a value of the same shape in place, without gradient, and return the tensor."""
        value = _operand(value, self)
        shape = value.shape if isinstance(value, Tensor) else ()
        if tuple(shape) != tuple(self.shape):
            raise ValueError(
                f"The weight {self.path!r} has shape {tuple(self.shape)}, but was assigned a value of shape "
                f"{tuple(shape)}."
            )
        with torch.no_grad():
            self.copy_(value) if isinstance(value, Tensor) else self.fill_(value)
        return self

    def assign_add(self: Any, value: Any) -> Any:
        """Add in place, without gradient, and return the tensor."""
        with torch.no_grad():
            self.add_(_operand(value, self))
        return self

    def assign_sub(self: Any, value: Any) -> Any:
        """Subtract in place, without gradient, and return the tensor."""
        with torch.no_grad():
            self.sub_(_operand(value, self))
        return self

    @property
    def value(self: Any) -> Any:
        """The tensor itself."""
        return self

    def numpy(self: Any, *, force: bool = True) -> np.ndarray:
        """A copy of the values as an array, from wherever the tensor is."""
        values: np.ndarray = self.detach().cpu().resolve_conj().resolve_neg().numpy()
        return values.copy()

    @property
    def path(self) -> str:
        """The name of the layer or metric, and of the weight in it: `dense/kernel`; "" for one that belongs to none."""
        owner, name = _places.get(self, (None, ""))
        found = None if owner is None else owner()
        return name if found is None else f"{found.name}/{name}"


def _operand(value: Any, weight: Any) -> Any:
    """A value as torch's in-place methods take it. (torch.compile wants numbers and tensors left as they are.)"""
    return value if isinstance(value, (int, float, Tensor)) else torch.as_tensor(value).to(weight.device)


class AssignableParameter(Assignable, nn.Parameter):
    """A parameter that answers as Keras' variables do."""


class AssignableState(Assignable, nn.Parameter):
    """State that no optimizer changes and that answers as Keras' variables do.

    A parameter, whatever table of its layer it is in: those are what torch.compile takes of other classes than its own.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        # As a plain tensor or buffer: torch's own way would make a parameter of it.
        plain = self.detach()
        plain.__dict__.update(self.__dict__)
        return plain.__reduce_ex__(protocol)


class AssignableView(Assignable, Tensor):
    """A weight as Keras lays it out, made from torch's tensors: gradients flow to those, values are written there."""

    # As of a parameter: what is computed from it is a plain tensor.
    __torch_function__ = nn.Parameter.__torch_function__

    write: Callable[[Tensor], None]

    def assign(self, value: Any) -> Any:
        value = torch.as_tensor(value, device=self.device, dtype=self.dtype)
        if value.shape != self.shape:
            raise ValueError(
                f"The weight {self.path!r} has shape {tuple(self.shape)}, but was assigned a value of shape "
                f"{tuple(value.shape)}."
            )
        self.write(value)
        # It may be a copy of what was written.
        self.data.copy_(value)
        return self

    def assign_add(self, value: Any) -> Any:
        return self.assign(self.detach() + torch.as_tensor(value, device=self.device))

    def assign_sub(self, value: Any) -> Any:
        return self.assign(self.detach() - torch.as_tensor(value, device=self.device))


def assignable_view(value: Tensor, write: Callable[[Tensor], None], owner: Named, name: str) -> Tensor:
    """A tensor computed from weights, that answers as Keras' variables do.

    Args:
        value: left as it is if it is of another class than torch's own two, and in torch.compile.
        write: puts a value into the weights.
        owner, name: the parts of its `path`.
    """
    if type(value) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling():
        return value
    view = value.as_subclass(AssignableView)
    view.write = write
    _places[view] = (weakref.ref(owner), name)
    return view


def is_parameter(value: object) -> TypeGuard[nn.Parameter]:
    """Whether it is a parameter, and not state that has the class of one only."""
    return isinstance(value, nn.Parameter) and not isinstance(value, AssignableState)


def make_assignable(tensor: Tensor, owner: Named, name: str, is_state: bool) -> Tensor:
    """Let a parameter, or a tensor that is a layer's or metric's state, answer so; it stays the same object.

    Args:
        tensor: left as it is if it is of another class than torch's own two: a fake tensor, say.
        owner, name: the parts of its `path`.
        is_state: whether it is no parameter.
    """
    if type(tensor) in (Tensor, nn.Parameter):
        tensor.__class__ = AssignableState if is_state else AssignableParameter
    if isinstance(tensor, Assignable):
        _places[tensor] = (weakref.ref(owner), name)
    return tensor
