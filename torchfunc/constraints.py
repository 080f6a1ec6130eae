"""Constraints on weights: what an optimizer's step leaves is put back where it may be.

A constraint is called with one weight and returns the weight it becomes, of the same shape and dtype. A weight comes
in Keras' layout, (in, out) for a Dense kernel and (*spatial, in, out) for a convolution's, whatever layout its layer
keeps it in. The default `axis=0` is thus the weights into each unit of a Dense layer; for a 2-D convolution these are
`axis=[0, 1, 2]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from torchfunc.arrays import as_tensor
from torchfunc.config import epsilon
from torchfunc.families import Family

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]

Axes: TypeAlias = "int | Sequence[int] | None"


class Constraint:
    """The base class: write `__call__(w)`, and `get_config()` if the constructor has arguments.

    >>> class Halved(constraints.Constraint):
    ...     def __call__(self, w):
    ...         return w / 2
    >>> Halved()(torch.tensor([2.0, 4.0]))
    tensor([1., 2.])
    >>> layer = layers.Dense(3, kernel_constraint=Halved())
    """

    # The attributes that are the constructor's arguments.
    arguments: ClassVar[tuple[str, ...]] = ()

    def __call__(self, w: Tensor) -> Tensor:
        """Return what the weight `w` becomes; `w` itself unless a subclass says otherwise."""
        return w

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a constraint made with the arguments that `get_config` returned."""
        return cls(**config)


class NonNeg(Constraint):
    """Negative weights become zero.

    >>> constraints.NonNeg()([-1.0, 2.0])
    tensor([0., 2.])
    """

    def __call__(self, w: Tensor) -> Tensor:
        return torch.clamp(as_tensor(w), min=0)


class _NormConstraint(Constraint):
    """Scales the vectors along `axis`, so that their Euclidean norm becomes `_desired(norm)`."""

    def __init__(self, axis: Axes) -> None:
        self.axis = axis

    def _desired(self, norms: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, w: Tensor) -> Tensor:
        w = as_tensor(w)
        norms = torch.linalg.vector_norm(w, dim=self.axis, keepdim=True)
        return w * (self._desired(norms) / (epsilon() + norms))


class MaxNorm(_NormConstraint):
    """Limits the norm of the weights into each unit; shorter ones stay.

    Args:
        max_value: the largest norm. Default 2.
        axis: the axis, or axes, that norms are taken along; None is all. Default 0.

    >>> constraints.MaxNorm(1.0)([[3.0, 0.3], [4.0, 0.4]])
    tensor([[0.6000, 0.3000],
            [0.8000, 0.4000]])
    """

    arguments = ("max_value", "axis")

    def __init__(self, max_value: float = 2, axis: Axes = 0) -> None:
        super().__init__(axis)
        self.max_value = max_value

    def _desired(self, norms: Tensor) -> Tensor:
        return torch.clamp(norms, 0, self.max_value)


class UnitNorm(_NormConstraint):
    """Gives the weights into each unit the norm 1.

    Args:
        axis: the axis, or axes, that norms are taken along; None is all. Default 0.

    >>> constraints.UnitNorm()([[3.0, 0.3], [4.0, 0.4]])
    tensor([[0.6000, 0.6000],
            [0.8000, 0.8000]])
    """

    arguments = ("axis",)

    def __init__(self, axis: Axes = 0) -> None:
        super().__init__(axis)

    def _desired(self, norms: Tensor) -> Tensor:
        return torch.ones_like(norms)


class MinMaxNorm(_NormConstraint):
    """Keeps the norm of the weights into each unit between two bounds.

    The norm becomes `(1 - rate) * norm + rate * clamp(norm, min_value, max_value)`.

    Args:
        min_value: the smallest norm. Default 0.
        max_value: the largest norm. Default 1.
        rate: 1 (default) enforces the bounds at each step; less moves that part of the way towards them.
        axis: the axis, or axes, that norms are taken along; None is all. Default 0.

    >>> constraints.MinMaxNorm(min_value=1.0, max_value=5.0)([[30.0, 0.3], [40.0, 0.4]])
    tensor([[3.0000, 0.6000],
            [4.0000, 0.8000]])
    """

    arguments = ("min_value", "max_value", "rate", "axis")

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: Axes = 0,
    ) -> None:
        super().__init__(axis)
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate

    def _desired(self, norms: Tensor) -> Tensor:
        return torch.lerp(norms, torch.clamp(norms, self.min_value, self.max_value), self.rate)


max_norm = MaxNorm
min_max_norm = MinMaxNorm
non_neg = NonNeg
unit_norm = UnitNorm

_family = Family(
    "constraint",
    "keras.constraints",
    {"MaxNorm": MaxNorm, "MinMaxNorm": MinMaxNorm, "NonNeg": NonNeg, "UnitNorm": UnitNorm},
)


def get(identifier: Any) -> Any:
    """Return the constraint that `identifier` stands for.

    Args:
        identifier: a name ("max_norm"), a config, a `Constraint` or its class, any function of a weight, or None for
            none.

    Raises:
        ValueError: there is no constraint of that name, or it is nothing that can be called.

    >>> constraints.get("max_norm").max_value
    2
    >>> constraints.get(None) is None
    True
    """
    return _family.get(identifier)


def serialize(constraint: Any) -> Any:
    """Return the config of a constraint; None gives None.

    >>> constraints.serialize(constraints.NonNeg())["class_name"]
    'NonNeg'
    """
    return _family.serialize(constraint)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return the constraint that `serialize`, ours or Keras', wrote as `config`.

    Args:
        config: a config or a name; None gives None.
        custom_objects: functions and classes of yours that it may name.

    >>> config = constraints.serialize(constraints.MaxNorm(3.0))
    >>> constraints.deserialize(config).max_value
    3.0
    """
    return _family.deserialize(config, custom_objects)
