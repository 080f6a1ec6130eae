"""Tensors answer as Keras' variables do: `assign`, `assign_add`, `assign_sub`, `value`, `path`; parameters `numpy()`.

These names are put on `torch.Tensor` itself, which has none of them. A subclass for weights was tried: it costs time
in each operation, `nn.Parameter(weight)` refuses it (weight norm and other parametrizations call that), torch.compile
takes such a class for parameters only, and copies, moves and pickles have to restore it. So weights stay
`nn.Parameter`s, state stays a plain buffer, and `model.weights[0].assign(...)` works for torch's own modules too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from torchfunc.readable_arrays import readable

__all__ = ["VARIABLE_NAMES", "Named", "assignable_view", "set_place"]

VARIABLE_NAMES = ("assign", "assign_add", "assign_sub", "value", "path")


class Named(Protocol):
    """What a weight belongs to: a layer or a metric."""

    @property
    def name(self) -> str: ...


# By the tensor's `id`, beside the tensors: attributes of theirs would be pickled and copied with them. (Torch's
# `WeakTensorKeyDictionary` takes several times as long for an entry, and each layer that is drawn makes some.)
_places: dict[int, tuple[_TensorReference, weakref.ref[Named], str]] = {}


class _TensorReference(weakref.ref[Tensor]):
    """A reference to a tensor that has an entry, until it ends."""

    __slots__ = ("key",)
    key: int


def _forget(reference: _TensorReference) -> None:
    _places.pop(reference.key, None)


def set_place(tensor: Tensor, owner: Named, name: str) -> None:
    """Say what a weight belongs to and what it is called there, for its `path`."""
    reference = _TensorReference(tensor, _forget)
    reference.key = id(tensor)
    _places[reference.key] = reference, weakref.ref(owner), name


def _assign(self: Tensor, value: Any) -> Tensor:
    """Write a value of the same shape in place, without gradient, and return the tensor."""
    value = _operand(value, self)
    _check_shape(self, value.shape if isinstance(value, Tensor) else ())
    with torch.no_grad():
        return self.copy_(value) if isinstance(value, Tensor) else self.fill_(value)


def _assign_add(self: Tensor, value: Any) -> Tensor:
    """Add in place, without gradient, and return the tensor."""
    with torch.no_grad():
        return self.add_(_operand(value, self))


def _assign_sub(self: Tensor, value: Any) -> Tensor:
    """Subtract in place, without gradient, and return the tensor."""
    with torch.no_grad():
        return self.sub_(_operand(value, self))


def _value(self: Tensor) -> Tensor:
    """The tensor itself."""
    return self


def _path(self: Tensor) -> str:
    """The name of the layer or metric, and of the weight in it: `dense/kernel`; "" for one that belongs to none."""
    reference, owner, name = _places.get(id(self), (None, None, ""))
    if reference is not None and reference() is not self:
        return ""
    found = None if owner is None else owner()
    return name if found is None else f"{found.name}/{name}"


def _numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The values as an array; of a parameter that trains, where torch would raise, a copy from wherever it is."""
    if not self.requires_grad:
        return Tensor.numpy(self, force=force)
    values: np.ndarray = self.detach().cpu().resolve_conj().resolve_neg().numpy()
    return values.copy()


def _operand(value: Any, weight: Tensor) -> Any:
    """A value as torch's in-place methods take it. (torch.compile wants numbers and tensors left as they are.)"""
    return (
        value
        if isinstance(value, (int, float, Tensor))
        else torch.as_tensor(readable(np.asarray(value))).to(weight.device)
    )


def _check_shape(weight: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(weight.shape):
        raise ValueError(
            f"The weight {_path(weight)!r} has shape {tuple(weight.shape)}, but was assigned a value of shape "
            f"{tuple(shape)}."
        )


_answers = (_assign, _assign_add, _assign_sub, property(_value), property(_path))
for _name, _answer in zip(VARIABLE_NAMES, _answers, strict=True):
    setattr(Tensor, _name, _answer)
nn.Parameter.numpy = _numpy  # type: ignore[assignment]


class AssignableView(Tensor):
    """A weight as Keras lays it out, made from torch's tensors: gradients flow to those, values are written there."""

    # As of a parameter: what is computed from it is a plain tensor.
    __torch_function__ = nn.Parameter.__torch_function__

    write: Callable[[Tensor], None]
    numpy = _numpy

    def assign(self, value: Any) -> Any:
        value = torch.as_tensor(_operand(value, self), device=self.device, dtype=self.dtype)
        _check_shape(self, value.shape)
        self.write(value)
        # It may be a copy of what was written.
        self.data.copy_(value)
        return self

    def assign_add(self, value: Any) -> Any:
        return self.assign(self.detach() + _operand(value, self))

    def assign_sub(self, value: Any) -> Any:
        return self.assign(self.detach() - _operand(value, self))


def assignable_view(value: Tensor, write: Callable[[Tensor], None], owner: Named, name: str) -> Tensor:
    """A tensor computed from weights, that is written to where those are.

    Args:
        value: left as it is if it is of another class than torch's own two, and in torch.compile.
        write: puts a value into the weights.
        owner, name: the parts of its `path`.
    """
    if type(value) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling():
        return value
    view = value.as_subclass(AssignableView)
    view.write = write
    set_place(view, owner, name)
    return view
